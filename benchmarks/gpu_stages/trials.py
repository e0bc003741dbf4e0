"""One training of a case, and what it took; running out of memory is a finding like any other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from gpu_stages.bench import Bench, clear, is_exhaustion
from gpu_stages.cases import Case, rows_of, write_recipe
from peftkit.errors import first_line

Found = TypeVar("Found")


def train(case: Case, bench: Bench) -> dict[str, Any]:
    """Train a case's steps on the device.

    Returns: `fitted`, with what was measured or the reason; and the bytes that earlier work still
        held when this began.
    """
    from peftkit.benching.trial import run_trial
    from peftkit.recipe.build import build

    began, left_over = time.monotonic(), clear(bench.device)
    folder = bench.folder / case.name
    built = build(write_recipe(case, folder), bench.machine)
    measured, reason = exhausting(
        lambda: run_trial(
            case.cell, built, bench.machine, folder, rows=rows_of(case, built)
        ).to_json()
    )
    return {
        "fitted": measured is not None,
        "measured": measured,
        "reason": reason,
        "left_over_bytes": left_over,
        "seconds": round(time.monotonic() - began, 1),
    }


def exhausting(run: Callable[[], Found]) -> tuple[Found | None, str | None]:
    """Run what may run out of memory; return what it found, or None and what was said.

    The error goes no further: its traceback would hold every tensor of the frames it passed.
    """
    try:
        return run(), None
    except (RuntimeError, MemoryError) as error:
        if not is_exhaustion(error):
            raise
        return None, first_line(error) or type(error).__name__


def attempted(bench: Bench, what: str, run: Callable[[], Found]) -> Found | None:
    """Run one piece of a stage; where it fails, say so, keep that, and let the next one run."""
    try:
        return run()
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        bench.say(f"{what}: failed: {reason}")
        bench.add("failures", {"what": what, "reason": reason})
        traceback.print_exc(limit=-4)
        return None
