"""Whether a run may start: its plan held against the budget and against what is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from peftkit.errors import PeftkitError, ResourceError
from peftkit.progress import gibibytes

if TYPE_CHECKING:
    from peftkit.memory.plan import Plan
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe


def plan_run(
    recipe: Recipe, machine: Machine, lengths: Sequence[int]
) -> tuple[Plan | None, str | None]:
    """Plan a run from its real rows; None and the reason where it cannot be planned.

    A run that cannot be planned may well be trained, so that no failure of the planner, ours
    included, keeps it from starting.
    """
    from peftkit.memory.plan import plan

    try:
        return plan(recipe, lengths=lengths, machine=machine), None
    except PeftkitError as error:
        return None, error.message
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0:1]}"


def available_bytes(made: Plan, machine: Machine) -> int:
    """Return what a planned run may take: what is free, and what this process holds already."""
    return machine.free_bytes + made.term_bytes("runtime")


def limits_of(made: Plan, recipe: Recipe, machine: Machine) -> dict[str, int]:
    """Return what a plan's peak is held against: a name for each limit, and its bytes."""
    limits = {f"what is free on {machine.name}": available_bytes(made, machine)}
    if recipe.memory.budget_bytes is not None:
        limits["memory.budget"] = recipe.memory.budget_bytes
    return limits


def check_plan_fits(
    made: Plan, recipe: Recipe, machine: Machine, lengths: Sequence[int] = ()
) -> None:
    """Refuse a plan that passes the budget or what is free, before any weight is read.

    Raises:
        ResourceError: says by how much, and names the cheapest changes that would fit.
    """
    for name, limit in limits_of(made, recipe, machine).items():
        if made.peak_bytes > limit:
            base = made.term_bytes("base") + made.term_bytes("runtime")
            alone = f"; the weights alone take {gibibytes(base)}" if base > limit else ""
            raise ResourceError(
                f"this run is planned to take {gibibytes(made.peak_bytes)} in {made.peak_phase},"
                f" {gibibytes(made.peak_bytes - limit)} more than {name}:"
                f" {gibibytes(limit)}{alone}",
                hint=_ways_out(made, recipe, machine, limit, lengths),
            )


def _ways_out(
    made: Plan, recipe: Recipe, machine: Machine, limit: int, lengths: Sequence[int]
) -> str:
    """Name the cheapest changes that fit, at most three; the smallest setting where none does."""
    found = [
        *_smaller_batch(made, recipe, limit),
        *_checkpointing(recipe, machine, limit, lengths or [made.length]),
        *_shorter_rows(made, recipe, limit),
    ]
    if found:
        return "; or ".join(found)
    smallest = made.bytes_at(micro_batch=1, length=min(made.length, 64))
    return (
        f"a smaller base or model.quantize: one row of 64 tokens takes {gibibytes(smallest)}"
        " still (peftkit plan shows the terms)"
    )


def _smaller_batch(made: Plan, recipe: Recipe, limit: int) -> Iterator[str]:
    """Give the largest micro-batch that fits, with as many rows a step: it costs a little speed."""
    rows = made.largest_micro_batch(limit)
    if 0 < rows < made.micro_batch:
        times = -(-made.micro_batch * made.accumulation // rows)
        method = f"method.{recipe.method.name}"
        yield (
            f"{method}.per_device_train_batch_size={rows}"
            f" {method}.gradient_accumulation_steps={times}"
        )


def _checkpointing(
    recipe: Recipe, machine: Machine, limit: int, lengths: Sequence[int]
) -> Iterator[str]:
    """Give activation checkpointing where it fits: a third more time."""
    options = {**recipe.method.options, "activation_checkpointing": True}
    changed = dataclasses.replace(
        recipe, method=dataclasses.replace(recipe.method, options=options)
    )
    made, _ = plan_run(changed, machine, lengths)
    if made is not None and made.peak_bytes <= limit:
        key = f"method.{recipe.method.name}.activation_checkpointing"
        yield f"{key}=true ({gibibytes(made.peak_bytes)})"


def _shorter_rows(made: Plan, recipe: Recipe, limit: int) -> Iterator[str]:
    """Give the longest rows that fit: longer ones lose their end."""
    tokens = made.longest_length(limit)
    if 16 <= tokens < made.length:
        yield f"method.{recipe.method.name}.max_length={tokens}"
