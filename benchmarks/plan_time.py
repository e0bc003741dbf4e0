"""Time `peftkit plan` for an 8B and a 70B QLoRA: the whole command, and the fake step alone.

    python benchmarks/plan_time.py

The command runs in fresh processes, imports included; the step is planned after a smaller model's
plan has imported the stack. Writes benchmarks/results/plan_time.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEFTKIT = Path(sys.executable).with_name("peftkit")
RECIPE = ROOT / "recipes" / "hub" / "chat-llama-3.1-8b-qlora.yaml"
MODELS = {
    "8B": "meta-llama/Llama-3.1-8B-Instruct",
    "70B": "meta-llama/Llama-3.3-70B-Instruct",
}
RUNS = 5
STEP = """
import sys
from pathlib import Path
from peftkit.memory.devices import of_size
from peftkit.memory.plan import plan
from peftkit.recipe.load import load_recipe

file, *models = sys.argv[1:]
machine = of_size(141).as_machine()
for model in models:
    print(plan(load_recipe(Path(file), [f"model.path={model}"]), machine=machine).seconds)
"""


def whole_command(model: str) -> tuple[float, int]:
    """Plan in a fresh process; return its wall-clock seconds and its peak resident bytes."""
    command = [str(PEFTKIT), "plan", str(RECIPE), f"model.path={model}", "--gpus", "8,24,80,141"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return wall, usage.ru_maxrss * 1024


def step_alone(model: str) -> float:
    """Return the seconds of a plan in a process that has planned another model before."""
    command = [sys.executable, "-c", STEP, str(RECIPE), "Qwen/Qwen2.5-0.5B-Instruct", model]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.split()[-1])


def main() -> None:
    """Time both models, print the medians and write them."""
    results = {}
    for name, model in MODELS.items():
        walls, sizes = zip(*(whole_command(model) for _ in range(RUNS)), strict=True)
        steps = [step_alone(model) for _ in range(RUNS)]
        results[name] = {
            "model": model,
            "command_seconds": [round(wall, 2) for wall in walls],
            "step_seconds": [round(step, 2) for step in steps],
            "peak_resident_bytes": max(sizes),
        }
        print(
            f"{name:3} command {statistics.median(walls):.1f} s ({min(walls):.1f} to"
            f" {max(walls):.1f}), step {statistics.median(steps):.1f} s,"
            f" {max(sizes) / 2**30:.2f} GiB resident"
        )
    content = {
        "schema_version": 1,
        "runs": RUNS,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("peftkit", "torch", "transformers", "peft", "trl")},
        },
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **results,
    }
    out = ROOT / "benchmarks" / "results" / "plan_time.json"
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
