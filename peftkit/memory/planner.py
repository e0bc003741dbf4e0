"""Plan a training step's memory without weights or a device: run it on fake tensors and follow it.

The nouns here are what every other part of memory planning builds on: a `Plan` is what one recipe
needs at one micro-batch and length, and it answers for any other without running anything again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError
from peftkit.memory.growth import Footprint, largest_that_fits
from peftkit.memory.lengths import scored_share
from peftkit.memory.planned_config import config_of, with_tokens
from peftkit.memory.sharing import FSDP2, Sharing, sharing_of
from peftkit.memory.terms import Moment, Term, host_bytes, terms_of, timeline_of
from peftkit.rundir.paths import SCHEMA_VERSION
from peftkit.system.machine import describe_machine
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from peftkit.memory.batch_shape import BatchShape
    from peftkit.memory.evaluation import EvaluationPeak
    from peftkit.memory.fake_step import Rehearsal, Rehearsed
    from peftkit.memory.runtime import Runtime
    from peftkit.plugins import Machine, Method
    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Work:
    """Count what a phase computes and moves, from the same fake run; what a roofline needs."""

    num_flops: int
    """Matrix products and attention, 2 a multiply-add, recomputation included."""
    moved_bytes: int
    """Inputs read and outputs written by every operator."""
    num_operators: int
    copied_bytes: int = 0
    """Saved tensors that are copied to the host and back."""
    attention_flops: int = 0
    """Of `num_flops`, those that grow with the square of the length."""
    fixed_flops: int = 0
    """Of `num_flops`, those that do not depend on the batch."""
    fixed_bytes: int = 0
    """Of `moved_bytes`, the same: weights, and what is as large."""


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
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Plan:
    """Hold what one training step of a recipe needs, and when."""

    peak_bytes: int
    peak_phase: str
    """`load`, `forward`, `loss`, `backward` or `step`."""
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
    """Real tokens of an average micro-batch."""
    padded_tokens: int
    """The same, padding included, of one sequence a row: as `micro_batch * length` counts."""
    host_bytes: int
    """Pinned host memory that holds saved tensors at their most, beside the device's memory."""
    sharing: Sharing
    """The processes that train together; all numbers are of one of them."""
    unknown: tuple[str, ...]
    """What could not be planned, and is therefore missing from the numbers; empty as a rule."""
    seconds: float
    """How long planning took."""

    footprints: Callable[[int], Footprint] = field(repr=False, compare=False)
    """From a micro-batch to what replays it; one row allocates otherwise than several."""
    scoring: Callable[[int | None], EvaluationPeak | None] = field(repr=False, compare=False)
    """Plans the evaluation, in a second or two, from the prompts scored at once or the recipe's."""
    num_trained: int = 0
    """Numbers that are trained."""
    gradient_bytes: int = 0
    """Of their gradients, once."""
    num_virtual: int = 0
    """Positions that prompt learning puts before each row."""
    reserve: Callable[[int, int], int] | None = field(default=None, repr=False, compare=False)
    """Replays the step, at a micro-batch and length, on CUDA's allocator; None where none is."""
    hints: tuple[str, ...] = ()
    """What upstream says of options that it will drop, each with its key."""

    @cached_property
    def needed_bytes(self) -> int:
        """Return what must be free on the device: on CUDA, what its allocator takes to serve it."""
        return self.needs_at(micro_batch=self.micro_batch, length=self.length)

    @cached_property
    def evaluation(self) -> EvaluationPeak | None:
        """Return what scoring after training takes at its worst; None where nothing is scored.

        That of a model in shards is not planned, nor a method's own: it is None as well, and
        `unknown` says so.

        Raises:
            PlanningError: an operator of it cannot run without values.
        """
        return self.scoring(None)

    def evaluation_at(self, batch_size: int) -> EvaluationPeak | None:
        """Return what scoring would take with so many prompts at once, see `evaluation`."""
        return self.scoring(batch_size)

    def term_bytes(self, name: str) -> int:
        """Return what the terms of this name hold at the peak."""
        return sum(term.num_bytes for term in self.terms if term.name == name)

    def bytes_at(self, *, micro_batch: int, length: int) -> int:
        """Return the peak at another micro-batch and length, without running anything."""
        return self.footprints(micro_batch).peak(micro_batch, length)

    def needs_at(self, *, micro_batch: int, length: int) -> int:
        """Return `needed_bytes` at another micro-batch and length."""
        if self.reserve is None:
            return self.bytes_at(micro_batch=micro_batch, length=length)
        return self.reserve(micro_batch, length)

    def largest_micro_batch(self, device_bytes: int) -> int:
        """Return the most rows that fit at the plan's length; 0 when none does."""
        return self._largest(lambda rows: (rows, self.length), device_bytes, self.micro_batch)

    def longest_length(self, device_bytes: int, *, micro_batch: int | None = None) -> int:
        """Return the most tokens a row that fit at the plan's micro-batch, or another."""
        rows = micro_batch or self.micro_batch
        # Two tokens are the fewest that have a loss.
        return self._largest(lambda tokens: (rows, max(2, tokens)), device_bytes, self.length)

    def _largest(self, at: Callable[[int], tuple[int, int]], device_bytes: int, start: int) -> int:
        """Search by what is alive, which is quick, then go down to what the allocator can serve."""

        def fits(number: int) -> bool:
            rows, tokens = at(number)
            return self.bytes_at(micro_batch=rows, length=tokens) <= device_bytes

        found = largest_that_fits(fits, start)
        while self.reserve is not None and found:
            needed = self.reserve(*at(found))
            if needed <= device_bytes:
                break
            found = min(found - 1, found * device_bytes // needed)
        return found

    def verdict(self, name: str, total_bytes: int) -> Verdict:
        """Say whether and how far this plan fits a device."""
        return Verdict(
            name=name,
            total_bytes=total_bytes,
            fits=self.needed_bytes <= total_bytes,
            headroom_bytes=total_bytes - self.needed_bytes,
            max_micro_batch=self.largest_micro_batch(total_bytes),
            max_length=self.longest_length(total_bytes),
        )

    def to_json(self, verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
        """Return what `plan --json` prints and `plan.json` holds."""
        return {
            "schema_version": SCHEMA_VERSION,
            "peak_bytes": self.peak_bytes,
            "needed_bytes": self.needed_bytes,
            "peak_phase": self.peak_phase,
            "terms": [dataclasses.asdict(term) for term in self.terms],
            "phases": dict(self.phase_bytes),
            "micro_batch": self.micro_batch,
            "length": self.length,
            "accumulation": self.accumulation,
            "device": self.device,
            "num_processes": self.sharing.num_processes,
            "strategy": self.sharing.strategy or None,
            "host_bytes": self.host_bytes,
            "unknown": list(self.unknown),
            "devices": [verdict.to_json() for verdict in verdicts],
            "seconds": round(self.seconds, 3),
        }


def plan(
    recipe: Recipe,
    *,
    lengths: Sequence[int] | None = None,
    machine: Machine | None = None,
    num_processes: int = 1,
) -> Plan:
    """Plan a recipe's training step on a machine; no weight is read and nothing is computed.

    Args:
        lengths: tokens of each training row; the recipe's `max_length` for every row when absent.
        machine: the device to plan for (`peftkit.planning.devices`); this machine when absent.
        num_processes: how many train together, each on such a device; the plan is that of one.

    Raises:
        ArtefactError: the architecture is unknown, or custom code.
        PlanningError: an operator has no fake implementation; names it.
        UsageError: so many processes cannot train it, or that is not planned.
    """
    start = time.perf_counter()
    quiet_stack()
    from peftkit.memory.batch_shape import batch_shape
    from peftkit.memory.evaluation import unplanned_scoring
    from peftkit.memory.known_loss import known_loss
    from peftkit.memory.runtime import runtime_of
    from peftkit.plugins import Point
    from peftkit.recipe.build import build

    built = build(recipe, machine := machine or describe_machine(), is_here=False)
    known_loss(built)  # whatever is unknown is said first
    built, config = with_tokens(built, config_of(built, lengths))
    shape = batch_shape(built, config, lengths)
    rehearsed = _rehearsed(built, config, machine, shape, lengths, num_processes)
    runtime = runtime_of(machine)
    replays: dict[str, Rehearsal] = {}

    def rehearsal(rows: int) -> Rehearsal:
        at = rows if rows == shape.micro_batch else min(rows, 2)
        key = "one" if rows == 1 else shape.layout(rows)
        if key not in replays:
            point = Point(at, shape.length, shape.layout(rows), shape.target_length)
            held, block = runtime.num_bytes, runtime.block
            replays[key] = rehearsed.rehearse(point, held=held, block=block)
        return replays[key]

    return _sum_up(
        rehearsal(shape.micro_batch),
        shape,
        runtime,
        rehearsed,
        footprints=lambda rows: rehearsal(rows).footprint,
        scoring=partial(_score, rehearsed, built, shape, runtime),
        unscored=unplanned_scoring(built),
        hints=built.hints,
        seconds=time.perf_counter() - start,
    )


def _rehearsed(  # noqa: PLR0913, PLR0917
    built: Built,
    config: PretrainedConfig,
    machine: Machine,
    shape: BatchShape,
    lengths: Sequence[int] | None,
    num_processes: int,
) -> Rehearsed:
    """Make the fake model whose step stands for that of one process."""
    from peftkit.memory.fake_step import Rehearsed
    from peftkit.memory.sharded import Sharded

    sharing = sharing_of(built, built.method.config, num_processes)
    kind = Sharded if sharing.strategy == FSDP2 else Rehearsed
    share = scored_share(lengths, shape.micro_batch)
    return kind(built, config, device=machine.device, scored_share=share, sharing=sharing)


def plan_run(
    recipe: Recipe, machine: Machine, lengths: Sequence[int], *, num_processes: int = 1
) -> tuple[Plan | None, str | None]:
    """Plan a run from its real rows; None and the reason where it cannot be planned.

    A run that cannot be planned may well be trained, so that no failure of the planner, ours
    included, keeps it from starting.
    """
    try:
        made = plan(recipe, lengths=lengths, machine=machine, num_processes=num_processes)
        return made, None
    except PeftkitError as error:
        return None, error.message
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0:1]}"


def _score(
    rehearsed: Rehearsed, built: Built, shape: BatchShape, runtime: Runtime, batch_size: int | None
) -> EvaluationPeak | None:
    from peftkit.memory.evaluation import unplanned_scoring, worst_stage
    from peftkit.memory.fake import explained_operators

    section = built.recipe.evaluate
    if section is None or rehearsed.sharing.strategy == FSDP2 or unplanned_scoring(built):
        return None
    if batch_size is not None:
        section = dataclasses.replace(section, batch_size=batch_size)
        recipe = dataclasses.replace(built.recipe, evaluate=section)
        built = dataclasses.replace(built, recipe=recipe)
    with explained_operators():
        return worst_stage(rehearsed, built, shape, runtime)


def _sum_up(  # noqa: PLR0913
    made: Rehearsal,
    shape: BatchShape,
    runtime: Runtime,
    rehearsed: Rehearsed,
    *,
    footprints: Callable[[int], Footprint],
    scoring: Callable[[int | None], EvaluationPeak | None],
    unscored: tuple[str, ...],
    hints: tuple[str, ...],
    seconds: float,
) -> Plan:
    """Make the plan of what a rehearsal found."""
    live = made.footprint.live(shape.micro_batch, shape.length)
    return Plan(
        peak_bytes=int(live.total.max()),
        peak_phase=live.peak_phase,
        terms=terms_of(live, made.footprint, runtime),
        phase_bytes=live.phase_peaks(),
        timeline=timeline_of(live),
        micro_batch=shape.micro_batch,
        length=shape.length,
        accumulation=rehearsed.settings.accumulation,
        device=rehearsed.device,
        work={phase: Work(*counts) for phase, counts in made.work.items()},
        num_tokens=shape.num_tokens,
        padded_tokens=shape.padded_tokens,
        host_bytes=host_bytes(live),
        unknown=(*made.notes, *rehearsed.sharing.notes, *unscored),
        sharing=rehearsed.sharing,
        seconds=seconds,
        hints=hints,
        footprints=footprints,
        scoring=scoring,
        num_virtual=rehearsed.virtual.num,
        num_trained=sum(parameter.numel() for parameter in rehearsed.trained),
        gradient_bytes=sum(parameter.nbytes for parameter in rehearsed.trained),
        reserve=partial(_reserved, footprints, shape, runtime, rehearsed.method)
        if runtime.caches
        else None,
    )


def _reserved(  # noqa: PLR0913, PLR0917
    footprints: Callable[[int], Footprint],
    shape: BatchShape,
    runtime: Runtime,
    method: Method,
    micro_batch: int,
    length: int,
) -> int:
    """Replay a step on the caching allocator; the context lies outside of it."""
    from peftkit.memory.replay import reserved_bytes

    return runtime.context_bytes + reserved_bytes(
        footprints(micro_batch),
        micro_batch,
        length,
        workspaces=runtime.workspaces,
        former=min(length, shape.shortest) if method.empties_cache else None,
    )
