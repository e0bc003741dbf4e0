"""reach: the longest rows of an 8B QLoRA that train, as planned, then tried above and below.

Smaller cards are enforced on the one that is here. Attention's time grows with the square of the
length, so that the largest sizes are left out where their steps would take the stage's time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gpu_stages.bench import Bench, capped
from gpu_stages.cases import Case
from gpu_stages.planned import Request, plan_of
from gpu_stages.trials import attempted, train
from peftkit.system.units import GIB, gibibytes

if TYPE_CHECKING:
    from gpu_stages.bench import Setting

SHARE = 14
NUM_STEPS = 2
"""Beside the one that warms up: three steps in all."""
SIZES_GIB = (8, 12, 16, 24, 40, 48, 80)
BELOW, ABOVE = (0.98, 0.94, 0.88, 0.75), (1.03, 1.08, 1.16, 1.35)
"""Shares of the planned length, tried in turn until one fits, and until one does not."""
_SLOWER = 1.5
"""Times the predicted seconds that an attempt is given: warming up, building the model."""
_TO_BUILD = 6.0


def requests(setting: Setting) -> list[Request]:
    """Ask how long rows may be on each size."""
    return [_request(setting)]


def run(bench: Bench) -> None:
    """Try each size, the smallest first: their steps are the shortest."""
    planned = plan_of(_request(bench.setting), bench.setting, patience=bench.left)
    if planned["predicted"] is None:
        raise RuntimeError(f"unplanned: {planned['unplanned']}")
    for there in planned["longest"]:
        attempted(bench, gibibytes(there["total_bytes"]), partial(_size, there, bench))


def sizes(setting: Setting) -> tuple[int, ...]:
    """Return the bytes of the sizes that the card has, what is free of it the last."""
    free = setting.machine.free_bytes
    if setting.is_dry:
        return (2 * GIB,)
    return (*(gib * GIB for gib in SIZES_GIB if gib * GIB < free), free)


def _request(setting: Setting) -> Request:
    case = Case("tiny", "qlora", 64, num_steps=1) if setting.is_dry else _case(8192)
    return Request(case, sizes(setting))


def _case(length: int) -> Case:
    return Case("8b", "qlora", length, num_steps=NUM_STEPS)


def _size(there: Mapping[str, Any], bench: Bench) -> None:
    name, planned = gibibytes(there["total_bytes"]), int(there["length"])
    seconds = seconds_of_try(there)
    if planned < 2 or (seconds * 2 > bench.left() and not bench.is_dry):
        reason = "no row fits" if planned < 2 else f"two tries take {2 * seconds:,.0f} s"
        bench.add("left_out", {"name": name, "reason": reason})
        bench.say(f"{name}: {planned:,} tokens planned; left out: {reason}")
        return
    tries: list[dict[str, Any]] = []
    for shares, wanted in ((BELOW, True), (ABOVE, False)):
        for share in shares[: 1 if bench.is_dry else None]:
            if bench.left() < seconds and not bench.is_dry:
                break
            tries.append(_try(max(2, int(planned * share)), there, bench))
            if tries[-1]["fitted"] is wanted:
                break
    found = {"total_bytes": there["total_bytes"], "planned_length": planned, **bracket(tries)}
    bench.add("sizes", {**found, "tries": tries})
    shown = {key: "-" if found[key] is None else f"{found[key]:,}" for key in bracket([])}
    bench.say(
        f"{name}: {planned:,} tokens planned to fit; trained {shown['longest_fitted']},"
        f" ran out at {shown['shortest_failed']}"
    )


def seconds_of_try(there: Mapping[str, Any]) -> float:
    """Return how long three steps at the planned length are predicted to take, with care."""
    speed = (there["predicted"] or {}).get("speed")
    each = 0.0 if speed is None else float(speed["seconds_per_step"])
    return _TO_BUILD + _SLOWER * (NUM_STEPS + 1) * each


def bracket(tries: list[dict[str, Any]]) -> dict[str, int | None]:
    """Return the longest length that trained, and the shortest that ran out."""
    fitted = [one["length"] for one in tries if one["fitted"]]
    failed = [one["length"] for one in tries if not one["fitted"]]
    return {
        "longest_fitted": max(fitted, default=None),
        "shortest_failed": min(failed, default=None),
    }


def _try(length: int, there: Mapping[str, Any], bench: Bench) -> dict[str, Any]:
    case = _request(bench.setting).case
    if bench.is_dry:
        length = min(length, 64)
    with capped(bench.device, there["total_bytes"]):
        found = train(dataclasses.replace(case, length=length), bench)
    measured = found["measured"] or {}
    kept = ("peak_bytes", "reserved_bytes", "step_seconds")
    return {"length": length, "fitted": found["fitted"], "reason": found["reason"],
            **{key: measured.get(key) for key in kept}}  # fmt: skip
