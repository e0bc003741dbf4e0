"""Run one recipe in one and in two processes on the CPU: seconds, losses, and bytes that are sent.

    unshare --user --map-root-user --net python benchmarks/processes.py --bytes
    python benchmarks/processes.py --repeats 3      # in turns; on two cores that nothing else uses

Both ways read the same rows a step, 16 of 451 tokens at most: one process in two micro-batches, two
processes in one each, with one thread a process. Each writes its part of
`benchmarks/results/processes.json`. Bytes are those of the loopback of a network namespace, headers
included, of a longer run less those of a shorter one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import scaling  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "processes.json"
RECIPE = ROOT / "recipes" / "summarize-lora.yaml"
ROWS, NUM_STEPS, WARM_UP = 16, 40, 5
SHORT, LONG = 10, 30
"""Steps of the two runs whose bytes are subtracted."""


def train(folder: Path, *, num_processes: int, num_steps: int = NUM_STEPS) -> list[dict[str, Any]]:
    """Run it; return what it wrote of each step."""
    out = folder / f"{num_processes}-{num_steps}"
    rows = [f"method.sft.per_device_train_batch_size={ROWS // 2}",
            f"method.sft.gradient_accumulation_steps={2 // num_processes}",
            f"method.sft.max_steps={num_steps}", "method.sft.warmup_steps=0",
            "method.sft.logging_steps=1", "method.sft.save_strategy=no",
            "method.sft.use_cpu=true", "adapter.lora.lora_dropout=0", "evaluate=false"]  # fmt: skip
    launched = ["--launch", "accelerate", "--", "--num_processes", str(num_processes)]
    subprocess.run(
        [sys.executable, "-m", "peftkit", "run", str(RECIPE), *rows, "--out", str(out),
         *(launched if num_processes > 1 else [])],
        check=True, capture_output=True, cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def measure(repeats: int) -> dict[str, Any]:
    """Time both ways in turns; efficiency is the seconds of one by twice those of two."""
    turns = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            ran = {n: train(Path(folder), num_processes=n) for n in (1, 2)}
        seconds = {str(n): lines[-1]["seconds"] - lines[WARM_UP - 1]["seconds"]
                   for n, lines in ran.items()}  # fmt: skip
        apart = [abs(one["loss"] - two["loss"]) for one, two in zip(ran[1], ran[2], strict=True)]
        turns.append({"seconds": seconds, "loss_apart": max(apart)})
        print(turns[-1], flush=True)
    efficiencies = [one["seconds"]["1"] / 2 / one["seconds"]["2"] for one in turns]
    return {
        "num_steps": NUM_STEPS - WARM_UP,
        "rows": ROWS,
        "turns": turns,
        "efficiency": statistics.median(efficiencies),
        "efficiencies": efficiencies,
    }


def count_bytes() -> dict[str, Any]:
    """Count what two processes send in a step, beside the formula."""
    from peftkit.planning.communication import Exchange, communicated_bytes

    scaling.raise_loopback()
    sent = {}
    with tempfile.TemporaryDirectory() as folder:
        for num_steps in (SHORT, LONG):
            before = scaling.sent_on_loopback()
            train(Path(folder), num_processes=2, num_steps=num_steps)
            sent[num_steps] = scaling.sent_on_loopback() - before
        measured = json.loads((Path(folder) / f"2-{LONG}" / "measured.json").read_text("utf-8"))
    gradient_bytes = 4 * int(measured["num_trainable"])
    return {
        "sent_bytes": (sent[LONG] - sent[SHORT]) / (LONG - SHORT) / 2,
        "formula_bytes": communicated_bytes(Exchange("ddp", gradient_bytes), 2),
    }


def main() -> None:
    """Measure one of both, and keep it beside the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", action="store_true", help="count; in a network namespace")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    from peftkit.models.versions import stack_versions

    content = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if options.bytes:
        content["bytes"] = count_bytes()
    else:
        content["speed"] = measure(options.repeats)
    content |= {"versions": stack_versions(), "cores": len(os.sched_getaffinity(0))}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: content[key] for key in ("bytes", "speed") if key in content}))


if __name__ == "__main__":
    main()
