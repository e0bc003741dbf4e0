"""Hold peftkit's plans against runs that others recorded on GPUs.

    python benchmarks/recorded.py [--only TEXT] [--held-out] [--write NAME]

Plans every run of `benchmarks/recorded` with peftkit's own planner, as `peftkit plan` would plan
its recipe, and prints planned beside recorded, memory and speed. Nothing here has a formula of its
own. Without `--held-out` only the half is planned that is looked at; see
`benchmarks/recorded/README.md` for the rule. `--write NAME` keeps the result under
`benchmarks/results/recorded`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "recorded"


def compare(run: Any) -> dict[str, Any]:
    """Plan a run; return planned and recorded numbers.

    Raises:
        LeftOut: it is left out by the rule.
    """
    from recorded_runs import LeftOut

    from peftkit.errors import PeftkitError
    from peftkit.memory.planner import plan
    from peftkit.memory.settings import matrix_dtype
    from peftkit.planning import devices
    from peftkit.planning.roofline import predict

    run.check()
    try:
        device = devices.find(run.facts["device"])
        with tempfile.TemporaryDirectory() as folder:
            recipe = run.recipe(Path(folder))
            made = plan(recipe, lengths=run.lengths, machine=device.as_machine())
            evaluation = made.evaluation
    except PeftkitError as error:
        raise LeftOut(_reason(error.message)) from error
    runtime = made.term_bytes("runtime")
    speed = predict(made, device, dtype=matrix_dtype(recipe, device.as_machine()))
    allocated = made.peak_bytes - runtime
    if evaluation is not None:
        allocated = max(allocated, evaluation.num_bytes - runtime)
    return {
        "name": run.name,
        "source": run.source,
        "is_held_out": run.is_held_out,
        "recorded_bytes": run.memory_bytes,
        "planned_bytes": allocated,
        "error": allocated / run.memory_bytes - 1,
        "phase": made.peak_phase,
        "recorded_tokens_per_second": run.tokens_per_second,
        "planned_tokens_per_second": None if speed is None else speed.tokens_per_second,
        "bound": None if speed is None else speed.bound,
        "notes": list(made.unknown),
    }


def _reason(message: str) -> str:
    """Return an error's message in one line, without the folder that the recipe lay in."""
    return re.sub(r"\S*/run\.yaml:\s*", "", " ".join(message.split()))


def speed_error(cell: dict[str, Any]) -> float | None:
    """Return how far the predicted speed is from the recorded one."""
    recorded, planned = cell["recorded_tokens_per_second"], cell["planned_tokens_per_second"]
    return None if recorded is None or planned is None else planned / recorded - 1


def summarize(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and worst errors, and how many runs were planned too small."""
    errors = [cell["error"] for cell in cells]
    speeds = [error for cell in cells if (error := speed_error(cell)) is not None]
    return {
        "num_runs": len(cells),
        "memory_mean_absolute": _mean([abs(e) for e in errors]),
        "memory_mean": _mean(errors),
        "memory_worst": max(errors, key=abs, default=None),
        "num_below_by_2_percent": sum(e < -0.02 for e in errors),
        "speed_mean_absolute": _mean([abs(e) for e in speeds]),
        "speed_mean": _mean(speeds),
        "speed_worst": max(speeds, key=abs, default=None),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _line(cell: dict[str, Any]) -> str:
    speed = speed_error(cell)
    gib = 1 << 30
    return (
        f"{cell['name']:52} {cell['planned_bytes'] / gib:7.3f} {cell['recorded_bytes'] / gib:7.3f}"
        f" {cell['error']:+7.2%} {cell['phase']:8}"
        f" {cell['planned_tokens_per_second'] or 0:7.0f}"
        f" {cell['recorded_tokens_per_second'] or 0:7.0f}"
        f" {'-' if speed is None else f'{speed:+7.1%}'} {cell['bound']}"
    )


def main() -> None:
    """Plan the runs, print them, and keep the result where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="text in the name of a run")
    parser.add_argument("--held-out", action="store_true", help="plan the held-out half as well")
    parser.add_argument("--write", help="the name of the result")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from recorded_runs import LeftOut, load_runs

    from peftkit.models.versions import stack_versions
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    cells, left_out = [], {}
    for run in load_runs():
        if (run.is_held_out and not options.held_out) or (options.only or "") not in run.name:
            continue
        try:
            cells.append(compare(run))
            print(_line(cells[-1]), flush=True)
        except LeftOut as reason:
            left_out[run.name] = str(reason)
            print(f"{run.name:52} left out: {reason}", flush=True)
    summary = summarize(cells)
    print(json.dumps(summary, indent=1))
    if options.write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        content = {
            "versions": stack_versions(), "summary": summary, "left_out": left_out, "cells": cells,
        }  # fmt: skip
        file = RESULTS / f"{options.write}.json"
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {file}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
