"""Hold peftkit's plans against runs that others recorded on GPUs.

    python benchmarks/recorded.py [--only TEXT] [--half held-out] [--write NAME]

Plans every run of `benchmarks/recorded` with peftkit's own planner, as `peftkit plan` would plan
its recipe, and prints planned beside recorded, memory and speed. Nothing here has a formula of its
own. Unless told otherwise it plans the half that is looked at; `benchmarks/recorded/README.md`
has the rule. `--write NAME` keeps the result under
`benchmarks/results/recorded`.
"""

from __future__ import annotations

import argparse
import dataclasses
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


_SPEED_FROM = (
    "micro_batch", "length", "accumulation", "num_tokens", "padded_tokens", "num_virtual",
)  # fmt: skip
"""What a speed is predicted from, beside the work."""


def compare(run: Any, *, scores: bool = False) -> dict[str, Any]:
    """Plan a run; return planned and recorded numbers.

    Args:
        scores: whether the scoring in the same process is planned too, and the larger peak taken.

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
            recipe = run.recipe(Path(folder), scores=scores)
            made = plan(recipe, lengths=run.lengths, machine=device.as_machine())
    except PeftkitError as error:
        raise LeftOut(_reason(error.message)) from error
    if made.num_trained != run.facts["num_trained"]:
        raise LeftOut(f"{made.num_trained:,} parameters are trained, not the recorded ones")
    speed = predict(made, device, dtype=matrix_dtype(recipe, device.as_machine()))
    planned = _read(made, run.facts["reads"])
    device_bytes = run.facts["recorded"].get("device_bytes")
    return {
        "name": run.name,
        "source": run.source,
        "is_held_out": run.is_held_out,
        "reads": run.facts["reads"],
        "recorded_bytes": run.memory_bytes,
        "planned_bytes": planned,
        "error": planned / run.memory_bytes - 1,
        "device_error": None if device_bytes is None else made.needed_bytes / device_bytes - 1,
        "phase": made.peak_phase,
        "recorded_tokens_per_second": run.tokens_per_second,
        "planned_tokens_per_second": None if speed is None else speed.tokens_per_second,
        "bound": None if speed is None else speed.bound,
        "plan": {
            "work": {phase: dataclasses.asdict(work) for phase, work in made.work.items()},
            "dtype": matrix_dtype(recipe, device.as_machine()),
            "device": device.name,
            **{name: getattr(made, name) for name in _SPEED_FROM},
        },
        "notes": list(made.unknown),
    }


def _read(made: Any, counter: str) -> int:
    """Return what a counter of torch would show of a plan; it knows nothing of the context."""
    from peftkit.memory.runtime import CONTEXT_BYTES

    evaluation = made.evaluation
    scored = 0 if evaluation is None else evaluation.num_bytes
    training = made.needed_bytes if counter == "max_memory_reserved" else made.peak_bytes
    return int(max(training, scored) - CONTEXT_BYTES)


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
    parser.add_argument("--only", default="", help="text in the name of a run")
    parser.add_argument("--half", choices=("looked-at", "held-out"), default="looked-at")
    parser.add_argument("--scores", action="store_true", help="plan what they scored as well")
    parser.add_argument("--write", help="the name of the result; goes on where it stopped")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from recorded_runs import LeftOut, load_runs

    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    cells, left_out = _kept(options.write)
    known = {cell["name"] for cell in cells} | left_out.keys()
    for run in load_runs():
        if run.is_held_out != (options.half == "held-out") or options.only not in run.name:
            continue
        if run.name in known:
            continue
        try:
            cells.append(compare(run, scores=options.scores))
            print(_line(cells[-1]), flush=True)
        except LeftOut as reason:
            left_out[run.name] = str(reason)
            print(f"{run.name:52} left out: {reason}", flush=True)
        if options.write:
            _write(options.write, cells, left_out)
    print(json.dumps(summarize(cells), indent=1))


def _kept(name: str | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the cells and the reasons of an earlier call that did not come to its end."""
    file = RESULTS / f"{name}.json"
    if name is None or not file.is_file():
        return [], {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["cells"], content["left_out"]


def _write(name: str, cells: Sequence[dict[str, Any]], left_out: dict[str, str]) -> None:
    """Keep what is known so far."""
    from peftkit.models.versions import stack_versions

    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "versions": stack_versions(),
        "summary": summarize(cells),
        "left_out": left_out,
        "cells": list(cells),
    }
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
