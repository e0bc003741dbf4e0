"""plan: the planned peak beside what the allocator held, and predicted seconds beside measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gpu_stages import snapshot
from gpu_stages.bench import Bench
from gpu_stages.cases import Case
from gpu_stages.evaluation import measure_evaluation
from gpu_stages.planned import Request, plan_of
from gpu_stages.trials import attempted, train
from peftkit.bench import metered_bytes
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from gpu_stages.bench import Setting

SHARE = 28
NUM_WORST = 3
"""Cells whose allocator's record is kept."""
_FOR_THE_WORST = 0.2
"""Share of the stage's time that is kept for them."""
_MISSED = 0.005
"""From what error on a cell is worth a record."""

GRID = (
    Case("8b", "qlora", 2048, 2),
    Case("1b", "lora", 2048, 2),
    Case("8b", "lora-kept", 2048),
    Case("3b", "full-8bit", 1024),
    Case("8b", "lora-packed", 4096),
    Case("0.5b", "full", 1024, 2),
    Case("8b", "qlora-kept-packed", 4096),
    Case("3b", "dora", 1024, 2),
    Case("1b", "lora-kept", 512, 8),
    Case("8b", "qlora", 8192),
    Case("0.5b", "lora-kept-packed", 4096),
    Case("3b", "qlora", 4096),
    Case("8b", "dora", 512, 2),
    Case("3b", "lora-int8", 1024, 2),
    Case("0.5b", "lora", 8192),
    Case("8b", "full-8bit", 512),
    Case("1b", "qlora-kept", 1024, 4),
    Case("3b", "full", 2048),
    Case("8b", "lora", 8192),
    Case("0.5b", "dora", 512, 8),
    Case("3b", "lora-kept-packed", 8192),
    Case("8b", "qlora-paged", 2048),
    Case("1b", "full-paged", 2048),
)
"""In the order of worth: whatever is reached in time spreads over models, methods and lengths.

Paged optimizers come last: their managed memory is the driver's own, and where it goes wrong, what
comes after goes wrong with it.
"""
DRY = (
    Case("tiny", "lora", 64, 2, num_steps=1),
    Case("tiny", "qlora-kept-packed", 64, 2, num_steps=1),
)
_SCORED = (
    "data.splits={train: train, test: test}", "evaluate.split=test", "evaluate.batch_size={rows}",
    "evaluate.generation.max_new_tokens={new}",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scored:
    """Say what is generated from after training."""

    case: Case
    num_new: int

    @classmethod
    def of(cls, case: Case, *, rows: int, num_new: int) -> Scored:
        """Let a case's recipe score so many prompts at once."""
        overrides = tuple(line.format(rows=rows, new=num_new) for line in _SCORED[1:])
        return cls(dataclasses.replace(case, overrides=(_SCORED[0], *overrides)), num_new)


SCORED = (
    Scored.of(Case("8b", "lora", 512, 16), rows=16, num_new=64),
    Scored.of(Case("1b", "qlora", 1024, 32), rows=32, num_new=32),
)
SCORED_DRY = (Scored.of(Case("tiny", "lora", 32, 4), rows=4, num_new=4),)


def grid(setting: Setting) -> tuple[Case, ...]:
    """Return the cells, dry ones in a dry run."""
    return DRY if setting.is_dry else GRID


def scored(setting: Setting) -> tuple[Scored, ...]:
    """Return the evaluations."""
    return SCORED_DRY if setting.is_dry else SCORED


def requests(setting: Setting) -> list[Request]:
    """Ask for every cell's plan."""
    return [Request(case) for case in (*grid(setting), *(s.case for s in scored(setting)))]


def run(bench: Bench) -> None:
    """Measure cell by cell, then evaluations, then the worst cells once more with a record."""
    reserve = bench.left() * _FOR_THE_WORST
    measure = {case.name: partial(_measure, case, bench) for case in grid(bench.setting)}
    measure |= {
        f"scoring {one.case.name}": partial(_evaluate, one, bench) for one in scored(bench.setting)
    }
    for name, piece in measure.items():
        if bench.left() < reserve:
            bench.add("left_out", {"name": name, "reason": "no time was left"})
            continue
        attempted(bench, name, piece)
    bench.keep("summary", summarize(bench.content.get("cells", [])))
    for cell in worst(bench.content.get("cells", [])):
        if bench.left() > 0:
            attempted(bench, f"record of {cell['name']}", partial(_record, cell, bench))


def _measure(case: Case, bench: Bench) -> None:
    planned = plan_of(Request(case), bench.setting, patience=bench.left)
    predicted = planned["predicted"]
    if predicted is not None and predicted["peak_bytes"] > bench.machine.free_bytes:
        reason = f"planned to take {gibibytes(predicted['peak_bytes'])}"
        bench.add("left_out", {"name": case.name, "reason": reason})
        return
    found = train(case, bench)
    cell = {"name": case.name, "case": case.to_json(), **planned, **found}
    cell["planned_bytes"] = None if predicted is None else metered_bytes(predicted)
    cell["error"] = error_of(cell)
    bench.add("cells", cell)
    bench.say(describe(cell))


def error_of(cell: Mapping[str, Any]) -> float | None:
    """Return by how much the planned peak misses the allocated one; None where one is missing."""
    measured = cell["measured"]
    if measured is None or cell["planned_bytes"] is None:
        return None
    real = measured["peak_bytes"] - measured["baseline_bytes"] - cell["left_over_bytes"]
    return float(cell["planned_bytes"] / real - 1) if real > 0 else None


def describe(cell: Mapping[str, Any]) -> str:
    """Say a cell in a line, planned before measured."""
    planned = "unplanned" if cell["planned_bytes"] is None else gibibytes(cell["planned_bytes"])
    if cell["measured"] is None:
        return f"{cell['name']}: planned {planned}, ran out: {cell['reason']}"
    speed = (cell["predicted"] or {}).get("speed")
    seconds = "-" if speed is None else f"{speed['seconds_per_step']:.3f}"
    error = "" if cell["error"] is None else f" ({cell['error']:+.2%})"
    return (
        f"{cell['name']}: planned {planned}, allocated"
        f" {gibibytes(cell['measured']['peak_bytes'] - cell['measured']['baseline_bytes'])}{error};"
        f" predicted {seconds} s, took {statistics.median(cell['measured']['step_seconds']):.3f} s"
    )


def summarize(cells: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean and the worst error, and what was planned to fit and did not."""
    errors = {cell["name"]: cell["error"] for cell in cells if cell["error"] is not None}
    sizes = [abs(error) for error in errors.values()]
    return {
        "num_cells": len(errors),
        "mean_error": statistics.fmean(sizes) if sizes else None,
        "worst_error": max(sizes, default=None),
        "ran_out": [cell["name"] for cell in cells if not cell["fitted"]],
    }


def worst(cells: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the cells whose plan misses most, the worst first."""
    missed = [c for c in cells if c["error"] is not None and abs(c["error"]) > _MISSED]
    return sorted(missed, key=lambda cell: -abs(cell["error"]))[:NUM_WORST]


def _evaluate(one: Scored, bench: Bench) -> None:
    planned = plan_of(Request(one.case), bench.setting, patience=bench.left)
    predicted = planned["predicted"]
    if predicted is not None and predicted["evaluation"] is not None:
        runtime = predicted["peak_bytes"] - metered_bytes(predicted)
        planned_bytes = predicted["evaluation"]["num_bytes"] - runtime
    else:
        planned_bytes = None
    found = measure_evaluation(one.case, bench, num_new=one.num_new)
    real = found.get("peak_bytes")
    error = planned_bytes / real - 1 if planned_bytes is not None and real else None
    bench.add(
        "evaluations",
        {
            "name": one.case.name, "case": one.case.to_json(), "planned_bytes": planned_bytes,
            "planned": (predicted or {}).get("evaluation"), "measured": found, "error": error,
        },
    )  # fmt: skip
    shown = "-" if planned_bytes is None else gibibytes(planned_bytes)
    bench.say(f"scoring {one.case.name}: planned {shown}, {found.get('said')}")


def _record(cell: Mapping[str, Any], bench: Bench) -> None:
    """Train a cell again under the allocator's record; print its terms beside who holds what."""
    case = dataclasses.replace(Case.from_json(cell["case"]), num_steps=1)
    with snapshot.recording(bench.device) as recorded:
        train(case, bench)
    if recorded.snapshot is None:
        return
    reduced = snapshot.reduce_snapshot(recorded.snapshot)
    held = snapshot.holders_at_peak(reduced)
    bench.add("worst", {"name": cell["name"], "terms": cell["predicted"]["terms"], **held})
    snapshot.keep_snapshot(bench.setting.out / "snapshots.zip", cell["name"], reduced)
    bench.say(f"{cell['name']}: planned terms at {cell['predicted']['peak_phase']}'s peak")
    for term in cell["predicted"]["terms"]:
        bench.say(f"    {term['name']:12} {term['num_bytes']:>16,}  {term['formula']}")
    bench.say(f"  the allocator's record: {held['peak_bytes']:,} in {held['num_blocks']:,} blocks")
    for holder in held["holders"][:12]:
        asked = holder["asked_by"][0]
        bench.say(f"    {holder['num_bytes']:>16,} in {holder['num_blocks']:>5,}  {asked}")
