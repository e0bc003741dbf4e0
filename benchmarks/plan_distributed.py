"""Compare the planned share of one process with what real processes take: DDP and FSDP2 on gloo.

    python benchmarks/plan_distributed.py [--only NAME]

Every cell of `tests/memory/test_sharded.py`: the planner's fake step of one process, and the same
step in real processes on this CPU, the first of them followed allocation by allocation. Writes
`benchmarks/results/plan_distributed.json`. What it cannot show: CUDA's allocator and streams,
NCCL's buffers, and memory that a collective takes outside of torch's tensors.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "plan_distributed.json"


def compare(name: str) -> dict[str, Any]:
    """Plan a cell and run it; return planned and real peaks in bytes, by phase."""
    import real_processes
    import test_sharded

    num_processes, changes = test_sharded.CELLS[name]
    with tempfile.TemporaryDirectory() as folder:
        recipe = test_sharded.recipe_of(Path(folder), changes)
        planned = test_sharded.planned_peaks(test_sharded.rehearse(recipe, num_processes))
        real = real_processes.real_peaks(recipe.file, num_processes)
    return {
        "name": name,
        "num_processes": num_processes,
        "changes": changes,
        "real_bytes": real,
        "planned_bytes": planned,
        "error": planned["all"] / real["all"] - 1,
        "worst_error": max((planned[key] / real[key] - 1 for key in real), key=abs),
    }


def main() -> None:
    """Run the cells and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="a cell's name; repeatable")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "memory")]
    warnings.simplefilter("ignore")
    import test_sharded

    from peftkit.models.versions import stack_versions
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    cells = []
    for name in options.only or test_sharded.CELLS:
        cells.append(compare(name))
        done = cells[-1]
        print(
            f"{name:24} {done['real_bytes']['all']:>12,} {done['error']:+.4%}"
            f"  worst of all phases {done['worst_error']:+.4%}",
            flush=True,
        )
    if options.only:
        return
    content = {
        "versions": stack_versions(),
        "python": platform.python_version(),
        "device": platform.processor() or platform.machine(),
        "num_cells": len(cells),
        "worst_error": max(abs(cell["error"]) for cell in cells),
        "worst_error_of_a_phase": max(abs(cell["worst_error"]) for cell in cells),
        "cells": cells,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
