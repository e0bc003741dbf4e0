"""Whether a run may start: its plan held against the budget and against what is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import ResourceError
from peftkit.memory.scoring import batch_size_that_fits, planned_evaluation
from peftkit.planning.suggestions import SPARE, explain_smallest, ways_out
from peftkit.system.units import duration, gibibytes

if TYPE_CHECKING:
    from peftkit.memory.planner import Plan
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Admission:
    """Say what a run is planned to take, in plain data: it may be found in another process."""

    said: str
    content: dict[str, Any] | None = None
    """What `plan.json` holds; None where nothing could be planned."""
    refusal: ResourceError | None = None
    """Why it may not start."""


def find_admission(
    recipe: Recipe, machine: Machine, lengths: Sequence[int], *, num_processes: int
) -> Admission:
    """Plan a run from its real rows, and find out whether it may start.

    Args:
        lengths: tokens of each training row.
    """
    from peftkit.memory.planner import plan_run

    made, reason = plan_run(recipe, machine, lengths, num_processes=num_processes)
    if made is None:
        return Admission(f"none: {reason}")
    content = plan_json(made, recipe, machine, num_rows=len(lengths))
    said = (
        f"{gibibytes(made.peak_bytes)} peak in {made.peak_phase}:"
        f" {made.micro_batch} rows of {made.length:,} tokens{_predicted(content)}"
    )
    try:
        check_plan_fits(made, recipe, machine, lengths)
    except ResourceError as error:
        return Admission(said, content, error)
    return Admission(said, content)


def _predicted(plan: Mapping[str, Any]) -> str:
    for speed in plan["speeds"]:
        return f"; {speed['num_steps']:,} steps in {duration(speed['run_seconds'])} predicted"
    return ""


def plan_json(made: Plan, recipe: Recipe, machine: Machine, *, num_rows: int) -> dict[str, Any]:
    """Return what `plan.json` holds: the plan, what it is held against, and the predicted time.

    Times are predicted for a device whose rates are published; a CPU's would have to be measured.
    """
    from peftkit.planning import devices
    from peftkit.planning.forecast import forecast

    device = devices.present(machine.name, machine.total_bytes)
    found = forecast(made, recipe, device, machine, num_rows=num_rows)
    limits = limits_of(made, recipe, machine)
    evaluation = planned_evaluation(made)
    return {
        **made.to_json(),
        "evaluation": None if evaluation is None else dataclasses.asdict(evaluation),
        "limits": [{"name": name, "num_bytes": limit} for name, limit in limits.items()],
        "speeds": [] if found is None else [found.to_json()],
    }


def available_bytes(made: Plan, machine: Machine) -> int:
    """Return what a planned run may take: what is free, and what this process holds already."""
    return machine.free_bytes + made.term_bytes("runtime")


def limits_of(made: Plan, recipe: Recipe, machine: Machine) -> dict[str, int]:
    """Return what a plan's peak is held against: a name for each limit, and its bytes."""
    limits = {f"what is free on {machine.name}": available_bytes(made, machine)}
    if recipe.memory.budget_bytes is not None:
        limits["memory.budget"] = recipe.memory.budget_bytes
    return limits


def check_plan_fits(made: Plan, recipe: Recipe, machine: Machine, lengths: Sequence[int]) -> None:
    """Refuse a plan that passes the budget or what is free, before any weight is read.

    Args:
        lengths: tokens of each training row.

    Raises:
        ResourceError: says by how much, and names the cheapest changes that would fit.
    """
    limits = limits_of(made, recipe, machine)
    name, limit = min(limits.items(), key=lambda item: item[1])
    if made.needed_bytes <= limit:
        _check_evaluation_fits(made, recipe, name, limit)
        return
    base = made.term_bytes("base") + made.term_bytes("runtime")
    alone = f"; before any row it takes {gibibytes(base)}" if base > limit else ""
    found = ways_out(recipe, machine, limit, lengths, made)
    raise ResourceError(
        f"this run is planned to take {gibibytes(made.needed_bytes)} in {made.peak_phase},"
        f" {gibibytes(made.needed_bytes - limit)} more than {name}: {gibibytes(limit)}{alone}",
        hint="\n  or:  ".join(map(str, found)) or explain_smallest(recipe, machine),
    )


def _check_evaluation_fits(made: Plan, recipe: Recipe, name: str, limit: int) -> None:
    """Refuse to train what could then not be scored."""
    found = planned_evaluation(made)
    if found is None or recipe.evaluate is None or found.num_bytes <= limit:
        return
    hint = "score it on a larger device: leave out `evaluate`, and `peftkit evaluate RUN` there"
    rows = batch_size_that_fits(made, recipe.evaluate.batch_size, int(limit * (1 - SPARE)))
    if rows > 0:
        hint = f"evaluate.batch_size={rows}"
    raise ResourceError(
        f"scoring after training is planned to take {gibibytes(found.num_bytes)} for"
        f" {found.describe()}, {gibibytes(found.num_bytes - limit)} more than {name}:"
        f" {gibibytes(limit)}",
        hint=hint,
    )
