"""Time `peftkit plan` for an 8B and a 70B QLoRA: the whole command, and the fake step alone.

    python benchmarks/plan_time.py

The command runs in fresh processes, imports included; the step is planned after a smaller model's
plan has imported the stack. Writes benchmarks/results/plan_time.json.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from startup import ROOT, peftkit, timed, write_results

RECIPE = ROOT / "recipes" / "hub" / "chat-llama-3.1-8b-qlora.yaml"
MODELS = {
    "8B": "meta-llama/Llama-3.1-8B-Instruct",
    "70B": "meta-llama/Llama-3.3-70B-Instruct",
}
RUNS = 5
STEP = """
import sys
from pathlib import Path
from peftkit.planning.devices import of_size
from peftkit.memory.planner import plan
from peftkit.recipe.load import load_recipe

file, *models = sys.argv[1:]
machine = of_size(141).as_machine()
for model in models:
    print(plan(load_recipe(Path(file), [f"model.path={model}"]), machine=machine).seconds)
"""


def whole_command(model: str) -> tuple[float, int]:
    """Plan in a fresh process; return its wall-clock seconds and its peak resident bytes."""
    command = [str(peftkit), "plan", str(RECIPE), f"model.path={model}", "--gpus", "8,24,80,141"]
    wall, usage = timed(command)
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
    write_results("plan_time", RUNS, ("peftkit", "torch", "transformers", "peft", "trl"), results)


if __name__ == "__main__":
    main()
