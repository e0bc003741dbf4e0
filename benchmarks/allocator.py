"""Measure what keeping freed memory gains a training on the CPU, and what it takes.

    python benchmarks/allocator.py

Trains the embedded model's recipe for some steps with glibc as it is and with
`peftkit.allocator.keep_freed_memory`, in turns, each in a process of its own. Writes
benchmarks/results/allocator.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUM_EPOCHS = 0.064
"""12 steps of 16 of the 3,000 rows."""
REPEATS = 3

TRAIN = """
import sys
from pathlib import Path
import peftkit.allocator
if sys.argv[1] == "default":
    peftkit.allocator.keep_freed_memory = lambda **_: False
from peftkit.recipe.load import load_recipe
from peftkit.run import run
changes = ["method.sft.num_train_epochs=%s" % sys.argv[3], "evaluate=null"]
run(load_recipe(Path(sys.argv[4]), changes), out=Path(sys.argv[2]))
"""


def train(way: str) -> dict[str, float]:
    """Train in a process of its own; return tokens a second and the resident peak."""
    recipe = ROOT / "recipes" / "summarize-lora.yaml"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-c", TRAIN, way, str(out), str(NUM_EPOCHS), str(recipe)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        measured = json.loads((out / "measured.json").read_text())
    return {
        "tokens_per_second": measured["tokens_per_second"],
        "peak_gib": round(measured["peak_bytes"] / 2**30, 3),
    }


def main() -> None:
    """Take turns, print and write medians with every value."""
    found: dict[str, list[dict[str, float]]] = {"default": [], "kept": []}
    for _ in range(REPEATS):
        for way, runs in found.items():
            runs.append(train(way))
            print(way, runs[-1], flush=True)
    content = {
        "schema_version": 1,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "cores": len(os.sched_getaffinity(0)),
        "epochs": NUM_EPOCHS,
        **{
            way: {
                name: {
                    "median": statistics.median(run[name] for run in runs),
                    "all": [run[name] for run in runs],
                }
                for name in runs[0]
            }
            for way, runs in found.items()
        },
    }
    file = ROOT / "benchmarks" / "results" / "allocator.json"
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
