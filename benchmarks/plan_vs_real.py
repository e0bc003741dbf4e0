"""Compare planned with real peaks on the CPU, and time the planner on large models.

    python benchmarks/plan_vs_real.py [--only NAME] [--skip-speed]

Every cell of `tests/memory/test_planner.py`: the same step on fake tensors and on real ones, both
followed allocation by allocation. Writes `benchmarks/results/plan_cpu.json`. The planner's time is
given as CPU seconds beside wall-clock seconds, since a busy machine only lengthens the latter.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "plan_cpu.json"
LARGE = {
    "8B LoRA": ("meta-llama/Llama-3.1-8B", None),
    "70B QLoRA": (
        "meta-llama/Llama-3.1-70B",
        "{bitsandbytes: {load_in_4bit: true, bnb_4bit_quant_type: nf4,"
        " bnb_4bit_compute_dtype: bfloat16}}",
    ),
}


def compare(name: str, config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Plan a cell and run it; return both peaks in bytes and their relative difference."""
    import real_step

    from peftkit.memory.planner import plan

    with tempfile.TemporaryDirectory() as folder:
        saved = real_step.save_model(Path(folder), config, real_step.kind_of(changes))
        recipe = real_step.recipe_for(saved, **changes)
        batch, lengths = real_step.batch_of(recipe)
        made = plan(recipe, lengths=lengths, machine=real_step.CPU)
        real = real_step.real_peaks(recipe, batch)["all"]
    planned = made.peak_bytes - made.term_bytes("runtime")
    return {
        "name": name,
        "architecture": config["model_type"],
        "real_bytes": real,
        "planned_bytes": planned,
        "error": planned / real - 1,
        "phase": made.peak_phase,
        "notes": list(made.unknown),
    }


def time_command(model: str, quantize: str | None) -> dict[str, Any]:
    """Run `peftkit plan` for a large model; return its seconds and peak resident bytes."""
    command = [
        sys.executable, "-c", "from peftkit.cli import main; main()", "plan",
        str(ROOT / "recipes" / "summarize-lora.yaml"), f"model.path={model}",
        "model.dtype=bfloat16", "method.sft.per_device_train_batch_size=1",
        "method.sft.max_length=2048", "--gpus", "24,48,80", "--json",
    ]  # fmt: skip
    if quantize is not None:
        command.append(f"model.quantize={quantize}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    content = json.loads(done.stdout)
    return {
        "model": model,
        "command_cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2
        ),
        "command_wall_seconds": round(wall, 2),
        "plan_wall_seconds": content["seconds"],
        "peak_resident_bytes": after.ru_maxrss * 1024,
        "peak_bytes": content["peak_bytes"],
    }


def main() -> None:
    """Run the cells and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="a cell's name; repeatable")
    parser.add_argument("--skip-speed", action="store_true")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "memory")]
    warnings.simplefilter("ignore")
    from peftkit.models.versions import stack_versions
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    if options.skip_speed:
        speed = json.loads(RESULTS.read_text(encoding="utf-8"))["speed"]  # as it was measured
    else:
        speed = {name: time_command(*arguments) for name, arguments in LARGE.items()}
    for name, timed in speed.items():
        print(name, timed)
    import test_planner

    cells = []
    for name, (config, changes) in {**test_planner.QUICK, **test_planner.SLOW}.items():
        if options.only and name not in options.only:
            continue
        cells.append(compare(name, config, changes))
        print(f"{name:24} {cells[-1]['real_bytes']:>12,} {cells[-1]['error']:+.4%}", flush=True)
    worst = max(abs(cell["error"]) for cell in cells)
    print(f"{len(cells)} cells, worst error {worst:.4%}")
    if options.only:
        return
    content = {
        "versions": stack_versions(),
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "num_cells": len(cells),
        "worst_error": worst,
        "cells": cells,
        "speed": speed,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
