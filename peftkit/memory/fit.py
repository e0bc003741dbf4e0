"""Propose the fastest set of changes that makes a recipe fit a device."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, RecipeError, ResourceError
from peftkit.memory import devices
from peftkit.memory.devices import Device
from peftkit.memory.levers import Lever, Levers, read_levers
from peftkit.memory.plan import Plan, plan
from peftkit.memory.roofline import Speed, predict
from peftkit.memory.settings import matrix_dtype, method_settings
from peftkit.progress import gibibytes
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import dump_inline

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe

_SAME_SPEED = 0.01
"""Proposals whose predicted times differ by less are told apart by how little they change."""
_SMALL_OPTIMIZER = 0.01
"""Share of the peak below which the optimizer's state is not worth a change."""

NUM_REFINED = 3
"""Proposals whose speed is planned and not scaled: those that are shown."""

Settings = Mapping[str, Any]
"""Dotted key -> value."""


@dataclass(frozen=True)
class Setup:
    """Hold a recipe under some settings, at one micro-batch."""

    settings: Settings
    """What differs from the recipe; empty for the recipe as it is."""
    peak_bytes: int
    micro_batch: int
    accumulation: int
    length: int
    speed: Speed
    """Predicted."""


@dataclass(frozen=True)
class Change:
    """Say what one change saves and costs, with those before it made."""

    lever: str
    settings: Settings
    saved_bytes: int
    """Negative where it takes memory, for the sake of speed."""
    time_factor: float
    """Predicted time after it over the time before it."""


@dataclass(frozen=True)
class Proposal:
    """Hold one set of changes that fits."""

    setup: Setup
    changes: tuple[Change, ...]
    headroom_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "settings": dict(self.setup.settings),
            "peak_bytes": self.setup.peak_bytes,
            "headroom_bytes": self.headroom_bytes,
            "micro_batch": self.setup.micro_batch,
            "accumulation": self.setup.accumulation,
            "speed": self.setup.speed.to_json(),
            "changes": [
                {
                    "lever": change.lever,
                    "settings": dict(change.settings),
                    "saved_bytes": change.saved_bytes,
                    "time_factor": change.time_factor,
                }
                for change in self.changes
            ],
        }


@dataclass(frozen=True)
class Fit:
    """Hold what fits a device, fastest first."""

    device: Device
    now: Setup
    """The recipe as it is."""
    proposals: tuple[Proposal, ...]
    pinned: Mapping[str, int | None]
    """Key that stands in the recipe and was left alone -> its line; None for an override."""

    @property
    def fits_now(self) -> bool:
        """Tell whether the recipe fits as it is."""
        return self.now.peak_bytes <= self.device.total_bytes

    def to_json(self) -> dict[str, Any]:
        """Return what `fit --json` prints."""
        return {
            "schema_version": 1,
            "device": {"name": self.device.name, "total_bytes": self.device.total_bytes},
            "fits_now": self.fits_now,
            "peak_bytes": self.now.peak_bytes,
            "speed": self.now.speed.to_json(),
            "proposals": [proposal.to_json() for proposal in self.proposals],
            "pinned": dict(self.pinned),
        }


def fit(
    recipe: Recipe,
    device: Device,
    *,
    free: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
) -> Fit:
    """Find the settings that fit a device, the fastest first; the global batch stays.

    Args:
        free: dotted keys that stand in the recipe and may be changed all the same.
        lengths: tokens of each training row, as for `plan`.

    Raises:
        UsageError: `free` names what fit never changes.
        ResourceError: nothing that is open fits; says by how much, and what would.
    """
    search = _Search(recipe, device, read_levers(recipe, device.as_machine(), free=free), lengths)
    now = search.as_it_is()
    setups = [setup for settings in search.combinations() for setup in search.fitting(settings)]
    if not setups:
        raise search.refusal()
    best = sorted(setups, key=_rank)
    # Scaled rows move the weights too often or too seldom: the first few are planned anew.
    best[:NUM_REFINED] = sorted(map(search.refined, best[:NUM_REFINED]), key=_rank)
    proposals = [
        Proposal(setup, search.changes(now, setup), device.total_bytes - setup.peak_bytes)
        for setup in best
    ]
    pinned = {key: recipe.lines.get(key) for key in search.levers.pinned()}
    return Fit(device, now, tuple(proposals), pinned)


def overrides_of(settings: Settings) -> tuple[str, ...]:
    """Write settings as a command line takes them."""
    return tuple(f"{key}={dump_inline(value)}" for key, value in settings.items())


@dataclass
class _Search:
    """Plan combinations of settings, each once."""

    recipe: Recipe
    device: Device
    levers: Levers
    lengths: Sequence[int] | None
    plans: dict[tuple[str, ...], tuple[Plan, str] | None] = field(default_factory=dict)

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
            self.plans[overrides] = self._plan(overrides)
        return self.plans[overrides]

    def _plan(self, overrides: tuple[str, ...]) -> tuple[Plan, str] | None:
        machine = self.device.as_machine()
        try:
            changed = load_recipe(self.recipe.file, (*self.recipe.overrides, *overrides))
        except RecipeError:
            return None
        try:
            # Packed rows are all of `max_length`, whatever they are made of.
            packs = bool(method_settings(changed, machine).get("packing"))
            made = plan(changed, lengths=None if packs else self.lengths, machine=machine)
        except PeftkitError:
            if not overrides:
                raise
            return None
        return made, matrix_dtype(changed, machine)

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
            peak_bytes=made.bytes_at(micro_batch=micro_batch, length=made.length),
            micro_batch=micro_batch,
            accumulation=accumulation,
            length=made.length,
            speed=speed,
        )

    def combinations(self) -> Iterator[Settings]:
        """Give every combination of the open levers' choices, the recipe's own first."""
        levers = [lever for lever in self.levers.open() if self._is_worth_planning(lever)]
        if self.levers.batching.pinned_by:
            # Packed rows hold more tokens: a step of as many rows would be another training.
            levers = [lever for lever in levers if lever.name != "packing"]
        for picks in itertools.product(*(({}, *lever.choices) for lever in levers)):
            yield {key: value for pick in picks for key, value in pick.items()}

    def _is_worth_planning(self, lever: Lever) -> bool:
        planned = self.planned({})
        if lever.name != "optimizer" or planned is None:
            return True
        state = sum(term.num_bytes for term in planned[0].terms if term.name == "optimizer")
        return state > _SMALL_OPTIMIZER * planned[0].peak_bytes

    def fitting(self, settings: Settings) -> list[Setup]:
        """Return the fastest setup of these settings that fits, if any does."""
        planned = self.planned(settings)
        if planned is None:
            return []
        setups = [self.setup(settings, *planned, rows) for rows in self._micro_batches(planned[0])]
        fitting = [s for s in setups if s.peak_bytes <= self.device.total_bytes]
        if not fitting:
            return []
        unchanged = self.levers.micro_batch
        best = min(fitting, key=lambda s: (_pace(s), s.micro_batch != unchanged, -s.micro_batch))
        return [_with_batching(best, self.levers)]

    def refined(self, setup: Setup) -> Setup:
        """Return a setup with the speed of a plan made at its own micro-batch."""
        planned = self.planned(setup.settings)
        if planned is None:
            return setup
        return self.setup(setup.settings, *planned, setup.micro_batch)

    def _rows_of_a_step(self, made: Plan) -> int:
        """Return how many of a plan's rows hold the tokens that a step has now."""
        rows = self.levers.micro_batch * self.levers.accumulation
        planned = self.planned({})
        if planned is None:
            return rows
        now = planned[0].num_tokens / planned[0].micro_batch
        return max(1, round(rows * now / (made.num_tokens / made.micro_batch)))

    def _micro_batches(self, made: Plan) -> list[int]:
        """Return the micro-batches that keep the global batch."""
        if self.levers.batching.pinned_by:
            return [self.levers.micro_batch]
        total = self._rows_of_a_step(made)
        return [rows for rows in range(1, total + 1) if total % rows == 0]

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

    def refusal(self) -> ResourceError:
        """Say by how much nothing fits, and the smallest setting that would work."""
        is_pinned = self.levers.batching.pinned_by
        rows = self.levers.micro_batch if is_pinned else 1
        smallest = min(
            (
                (made.bytes_at(micro_batch=rows, length=made.length), made, settings)
                for settings in self.combinations()
                if (planned := self.planned(settings)) is not None
                for made in (planned[0],)
            ),
            key=lambda entry: entry[0],
        )
        needed, made, settings = smallest
        longest = made.longest_length(self.device.total_bytes, micro_batch=rows)
        ways = []
        if longest > 0:
            ways.append(f"max_length: {longest}")
        pinned = self.levers.pinned()
        if pinned:
            ways.append("--free " + " --free ".join(pinned))
        ways.append(f"a device of {math.ceil(needed / devices.GIB)} GiB")
        said = ", ".join(overrides_of(settings)) or "nothing changed"
        return ResourceError(
            f"nothing that is open fits {self.device.name}: with {said} and {rows} rows at once it"
            f" takes {gibibytes(needed)}, {gibibytes(needed - self.device.total_bytes)} too many",
            hint="; or ".join(ways),
        )


def _with_batching(setup: Setup, levers: Levers) -> Setup:
    """Add the micro-batch to a setup's settings where it differs from the recipe's."""
    if (setup.micro_batch, setup.accumulation) == (levers.micro_batch, levers.accumulation):
        return setup
    rows, times = levers.batching.keys
    batching = {rows: setup.micro_batch, times: setup.accumulation}
    return dataclasses.replace(setup, settings={**setup.settings, **batching})


def _rank(setup: Setup) -> tuple[int, int]:
    """Rank by time, then by how little is changed."""
    return _pace(setup), len(setup.settings)


def _seconds_per_token(setup: Setup) -> float:
    return 1 / setup.speed.tokens_per_second


def _pace(setup: Setup) -> int:
    """Rank by time, so that times which hardly differ are equal."""
    return round(math.log(_seconds_per_token(setup)) / _SAME_SPEED)
