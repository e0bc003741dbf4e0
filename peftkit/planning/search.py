"""Search the settings of a recipe that fit a device, planning as few of them as will do."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, ResourceError
from peftkit.memory.lengths import length_key
from peftkit.memory.planner import Plan, plan
from peftkit.memory.scoring import batch_size_that_fits, planned_evaluation
from peftkit.memory.settings import matrix_dtype, method_settings
from peftkit.planning import devices
from peftkit.planning.devices import Device
from peftkit.planning.levers import Lever, Levers
from peftkit.planning.proposals import (
    Change,
    Scored,
    Settings,
    Setup,
    changed,
    micro_batches,
    overrides_of,
)
from peftkit.planning.roofline import predict
from peftkit.system.units import GIB, gibibytes

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe

_SAME_SPEED = 0.01
"""Proposals whose predicted times differ by less are told apart by how little they change."""
_SMALL_OPTIMIZER = 0.03
"""Share of the peak below which the optimizer's state is not worth a change."""
NUM_SHOWN = 3
"""Proposals that people are shown."""


@dataclass
class Search:
    """Plan combinations of settings, each once."""

    recipe: Recipe
    device: Device
    levers: Levers
    lengths: Sequence[int] | None
    num_processes: int = 1
    plans: dict[tuple[str, ...], tuple[Plan, str] | None] = field(default_factory=dict)
    scorings: dict[str, Scored] = field(default_factory=dict)

    def as_it_is(self) -> Setup:
        """Plan the recipe unchanged."""
        planned = self.planned({})
        if planned is None:
            raise ResourceError(f"{self.recipe.file} cannot be planned as it is")
        return self.setup({}, *planned, self.levers.micro_batch)

    def planned(self, settings: Settings) -> tuple[Plan, str] | None:
        """Plan the recipe under settings; None where the gate or the planner refuses them."""
        overrides = overrides_of(settings)
        if overrides not in self.plans:
            self.plans[overrides] = self._plan(settings)
        return self.plans[overrides]

    def _plan(self, settings: Settings) -> tuple[Plan, str] | None:
        machine = self.device.as_machine()
        recipe = changed(self.recipe, settings)
        if recipe is None:
            return None
        try:
            # Packed rows are all of `max_length`, whatever they are made of.
            packs = bool(method_settings(recipe, machine).get("packing"))
            made = plan(
                recipe,
                lengths=None if packs else self.lengths,
                machine=machine,
                num_processes=self.num_processes,
            )
        except PeftkitError:
            if not settings:
                raise
            return None
        return made, matrix_dtype(recipe, machine)

    def setup(self, settings: Settings, made: Plan, dtype: str, micro_batch: int) -> Setup:
        """Take a plan at one micro-batch."""
        accumulation = max(1, self._rows_of_a_step(made) // micro_batch)
        speed = predict(
            made,
            devices.with_rates(self.device),
            dtype=dtype,
            micro_batch=micro_batch,
            accumulation=accumulation,
        )
        if speed is None:
            raise ValueError("a card with rates has a speed")
        return Setup(
            settings=settings,
            peak_bytes=made.needs_at(micro_batch=micro_batch, length=made.length),
            micro_batch=micro_batch,
            accumulation=accumulation,
            speed=speed,
        )

    def setups(self) -> list[Setup]:
        """Return the best setup of every combination that fits and is worth it, fastest first.

        What costs speed is tried last, and not at all where less of it fits a whole batch; what
        keeps a base that alone is too large is not planned.
        """
        found: list[Setup] = []
        whole: list[frozenset[str]] = []
        for settings, slow in sorted(self._combinations(), key=lambda pair: len(pair[1])):
            if any(other < slow for other in whole) or self._is_hopeless(settings):
                continue
            best = self._fitting(settings)
            if best is None:
                continue
            batching = self.levers.batching_at(best.micro_batch, best.accumulation)
            found.append(dataclasses.replace(best, settings={**best.settings, **batching}))
            if best.micro_batch >= self.levers.micro_batch:
                whole.append(slow)
        found.sort(key=_rank)
        # Scaled rows move the weights too often or too seldom: what is shown is planned anew.
        refined = [self._refined(setup) for setup in found[:NUM_SHOWN]]
        fitting = [s for s in refined if s.peak_bytes <= self.device.total_bytes]
        return [*sorted(fitting, key=_rank), *found[NUM_SHOWN:]]

    def _combinations(self) -> Iterator[tuple[Settings, frozenset[str]]]:
        """Give every combination of the open levers' choices, with what of it costs speed."""
        levers = [lever for lever in self.levers.open() if self._is_worth_planning(lever)]
        if self.levers.batching.pinned_by:
            # Packed rows hold more tokens: a step of as many rows would be another training.
            levers = [lever for lever in levers if lever.name != "packing"]
        options = [
            [(lever.name, choice, is_slow) for choice, is_slow in lever.options()]
            for lever in levers
        ]
        for picks in itertools.product(*options):
            settings = {key: value for _, choice, _ in picks for key, value in choice.items()}
            yield settings, frozenset(name for name, _, is_slow in picks if is_slow)

    def _is_worth_planning(self, lever: Lever) -> bool:
        planned = self.planned({})
        if lever.name != "optimizer" or planned is None:
            return True
        return planned[0].term_bytes("optimizer") > _SMALL_OPTIMIZER * planned[0].peak_bytes

    def _is_hopeless(self, settings: Settings) -> bool:
        """Tell whether the base, which these settings leave as it is, exceeds the device alone."""
        planned = self.planned({})
        is_same_base = "model.quantize" not in settings
        return (
            is_same_base
            and planned is not None
            and planned[0].term_bytes("base") > self.device.total_bytes
        )

    def _fitting(self, settings: Settings) -> Setup | None:
        """Return the fastest setup of these settings that fits, if any does.

        More rows at once are never slower, so the largest micro-batch is taken, or the recipe's
        own where that is as fast.
        """
        planned = self.planned(settings)
        if planned is None:
            return None
        sizes = self._micro_batches(planned[0])
        setups = (self.setup(settings, *planned, rows) for rows in sizes)
        best = next((s for s in setups if s.peak_bytes <= self.device.total_bytes), None)
        if best is None or self.levers.micro_batch not in sizes:
            return best
        if self.levers.micro_batch >= best.micro_batch:
            return best
        unchanged = self.setup(settings, *planned, self.levers.micro_batch)
        return unchanged if _pace(unchanged) == _pace(best) else best

    def _refined(self, setup: Setup) -> Setup:
        """Return a setup with the speed of a plan made at its own micro-batch."""
        planned = self.planned(setup.settings)
        if planned is None:
            return setup
        return self.setup(setup.settings, *planned, setup.micro_batch)

    def _rows_of_a_step(self, made: Plan) -> int:
        """Return how many of a plan's rows hold the tokens that a step has now."""
        rows = self.levers.rows_of_a_step
        planned = self.planned({})
        if planned is None:
            return rows
        now = planned[0].num_tokens / planned[0].micro_batch
        return max(1, round(rows * now / (made.num_tokens / made.micro_batch)))

    def _micro_batches(self, made: Plan) -> list[int]:
        """Return the micro-batches that keep the global batch, the largest first."""
        if self.levers.batching.pinned_by:
            return [self.levers.micro_batch]
        return micro_batches(self._rows_of_a_step(made))

    def changes(self, now: Setup, then: Setup) -> tuple[Change, ...]:
        """Split a proposal into one change a lever, each measured with those before it made."""
        made: list[Change] = []
        before, settings = now, dict[str, Any]()
        for lever in (*self.levers.levers, self.levers.batching):
            own = {key: then.settings[key] for key in lever.keys if key in then.settings}
            if not own:
                continue
            settings |= own
            after = self._on_the_way(settings, then, is_last=lever is self.levers.batching)
            if after is None:
                continue
            factor = _seconds_per_token(after) / _seconds_per_token(before)
            saved = before.peak_bytes - after.peak_bytes
            made.append(Change(lever.name, own, saved, factor))
            before = after
        return tuple(made)

    def _on_the_way(self, settings: Settings, then: Setup, *, is_last: bool) -> Setup | None:
        if is_last:
            return then
        planned = self.planned(settings)
        return self.setup(settings, *planned, self.levers.micro_batch) if planned else None

    def scored(self, settings: Settings) -> Scored:
        """Say what scoring takes under settings, and how many prompts at once would fit.

        Of all levers only the base's dtype and the rows' length change it.
        """
        planned = self.planned(settings)
        section = self.recipe.evaluate
        if planned is None or section is None:
            return Scored(None, None, None)
        made = planned[0]
        key = f"{settings.get('model.quantize', self)!r}, {made.length}"
        if key not in self.scorings:
            self.scorings[key] = self._scored(made, section.batch_size)
        return self.scorings[key]

    def _scored(self, made: Plan, batch_size: int) -> Scored:
        found = planned_evaluation(made)
        if found is None:
            return Scored(None, None, None)
        limit, rows = self.device.total_bytes, 0
        if found.num_bytes > limit and not self.levers.scoring.pinned_by:
            rows = batch_size_that_fits(made, batch_size, limit)
        fitting = planned_evaluation(made, rows) if rows else None
        if fitting is None:
            return Scored(found.num_bytes, found.num_bytes, None)
        return Scored(found.num_bytes, fitting.num_bytes, rows)

    def refusal(self) -> ResourceError:
        """Say by how much nothing fits, and the smallest setting that would work."""
        is_pinned = self.levers.batching.pinned_by
        rows = self.levers.micro_batch if is_pinned else 1
        made, overrides = min(
            ((found[0], overrides) for overrides, found in self.plans.items() if found),
            key=lambda entry: entry[0].needs_at(micro_batch=rows, length=entry[0].length),
        )
        needed = made.needs_at(micro_batch=rows, length=made.length)
        longest = made.longest_length(self.device.total_bytes, micro_batch=rows)
        ways = []
        if longest > 0:
            ways.append(f"{length_key(self.recipe)}={longest}")
        releasable = self.levers.releasable()
        if releasable:
            ways.append("--free " + " --free ".join(releasable))
        ways.append(f"a device of {math.ceil(needed / GIB)} GiB")
        said = " ".join(overrides) or "nothing changed"
        return ResourceError(
            f"nothing that is open fits {self.device.name}: the least is {gibibytes(needed)},"
            f" {gibibytes(needed - self.device.total_bytes)} too many, with {said} and"
            f" {rows} row{'s' if rows > 1 else ''} at once",
            hint="; or ".join(ways),
        )


def _rank(setup: Setup) -> tuple[int, int]:
    """Rank by time, then by how little is changed."""
    return _pace(setup), len(setup.settings)


def _seconds_per_token(setup: Setup) -> float:
    return 1 / setup.speed.tokens_per_second


def _pace(setup: Setup) -> int:
    """Rank by time, so that times which hardly differ are equal."""
    return round(math.log(_seconds_per_token(setup)) / _SAME_SPEED)
