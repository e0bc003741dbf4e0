"""Plan a training step's memory without weights or a device: run it on fake tensors and follow it.

The nouns here are what every other part of memory planning builds on: a `Plan` is what one recipe
needs at one micro-batch and length, and it answers for any other without running anything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe

PHASES = ("load", "forward", "loss", "backward", "step", "evaluate")
TERMS = (
    "base",
    "adapter",
    "gradients",
    "optimizer",
    "activations",
    "loss",
    "temporaries",
    "runtime",
)


@dataclass(frozen=True)
class Term:
    """Say what one kind of memory takes when the step is at its peak."""

    name: str
    """One of `TERMS`."""
    num_bytes: int
    phase: str
    """The phase in which most of it was allocated."""
    formula: str
    """How it grows, e.g. `262,144·B·T`, with B rows of T tokens; or the equation and its source."""
    exact: bool
    """Whether it was counted allocation by allocation; False for a documented estimate."""


@dataclass(frozen=True)
class Moment:
    """Say what is alive at one moment of the step; a timeline of them makes the picture."""

    phase: str
    num_bytes: Mapping[str, int]
    """Term -> live bytes."""


@dataclass(frozen=True)
class Work:
    """Count what a phase computes and moves, from the same fake run; what a roofline needs."""

    num_flops: int
    """Matrix products and attention, 2 a multiply-add, recomputation included."""
    moved_bytes: int
    """Inputs read and outputs written by every operator."""
    num_operators: int


@dataclass(frozen=True)
class Verdict:
    """Say whether and how far a plan fits one device size."""

    name: str
    total_bytes: int
    fits: bool
    headroom_bytes: int
    """Negative by what is missing."""
    max_micro_batch: int
    """Largest number of rows at the plan's length; 0 when not even one fits."""
    max_length: int
    """Longest rows, in tokens, at the plan's micro-batch; 0 when not even one token fits."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        raise NotImplementedError


@dataclass(frozen=True)
class Plan:
    """Hold what one training step of a recipe needs, and when."""

    peak_bytes: int
    peak_phase: str
    """One of `PHASES`."""
    terms: tuple[Term, ...]
    """What is alive at the peak; their sum is `peak_bytes`."""
    phase_bytes: Mapping[str, int]
    """Phase -> its own peak."""
    timeline: tuple[Moment, ...]
    micro_batch: int
    """Rows of one forward."""
    length: int
    """Tokens a row, padding included."""
    accumulation: int
    """Micro-batches a step."""
    device: str
    """`cpu` or `cuda`: whose kernels and runtime were planned."""
    work: Mapping[str, Work]
    """Phase -> what one micro-batch (`step`: the optimizer) computes and moves."""
    num_tokens: int
    """Real tokens of one micro-batch."""
    unknown: tuple[str, ...]
    """What could not be planned, and is therefore missing from the numbers; empty as a rule."""
    seconds: float
    """How long planning took."""

    def bytes_at(self, *, micro_batch: int, length: int) -> int:
        """Return the peak at another micro-batch and length, without running anything."""
        raise NotImplementedError

    def largest_micro_batch(self, device_bytes: int, *, length: int | None = None) -> int:
        """Return the most rows that fit at the plan's length, or another; 0 when none does."""
        raise NotImplementedError

    def longest_length(self, device_bytes: int, *, micro_batch: int | None = None) -> int:
        """Return the most tokens a row that fit at the plan's micro-batch, or another."""
        raise NotImplementedError

    def verdict(self, name: str, total_bytes: int) -> Verdict:
        """Say whether and how far this plan fits a device."""
        raise NotImplementedError

    def to_json(self, verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
        """Return what `plan --json` prints and `plan.json` holds."""
        raise NotImplementedError


def plan(
    recipe: Recipe,
    *,
    lengths: Sequence[int] | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Plan a recipe's training step on a machine; no weight is read and nothing is computed.

    Args:
        lengths: tokens of each training row; the recipe's `max_length` for every row when absent.
        machine: the device to plan for (`peftkit.memory.devices`); this machine when absent.

    Raises:
        UsageError: the architecture is unknown or custom code.
        ResourceError: an operator has no fake implementation; names it.
    """
    raise NotImplementedError
