"""What fit proposes: setups of a recipe that fit a device, and what each change saves and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftkit.errors import RecipeError
from peftkit.planning.devices import Device
from peftkit.planning.roofline import Speed
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe
from peftkit.recipe.yaml_file import dump_inline

Settings = Mapping[str, Any]
"""Dotted key -> value."""


def overrides_of(settings: Settings) -> tuple[str, ...]:
    """Write settings as a command line takes them."""
    return tuple(f"{key}={dump_inline(value)}" for key, value in settings.items())


def changed(recipe: Recipe, settings: Settings) -> Recipe | None:
    """Return the recipe under settings; None where they contradict what it says."""
    try:
        return load_recipe(recipe.file, (*recipe.overrides, *overrides_of(settings)))
    except RecipeError:
        return None


def micro_batches(rows_of_a_step: int, most: int | None = None) -> list[int]:
    """Return the micro-batches that keep the global batch, the largest first."""
    highest = rows_of_a_step if most is None else most
    return [rows for rows in range(highest, 0, -1) if rows_of_a_step % rows == 0]


@dataclass(frozen=True)
class Setup:
    """Hold a recipe under some settings, at one micro-batch."""

    settings: Settings
    """What differs from the recipe; empty for the recipe as it is."""
    peak_bytes: int
    micro_batch: int
    accumulation: int
    speed: Speed
    """Predicted."""


@dataclass(frozen=True)
class Scored:
    """Say what scoring after training takes under some settings."""

    num_bytes: int | None
    """None where nothing is scored, or it cannot be planned."""
    fitting_bytes: int | None
    """With `batch_size`; the same without one."""
    batch_size: int | None
    """The prompts at once that fit; None where all do, or none."""


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
    scoring_bytes: int | None
    """What scoring after training then takes; None where nothing is scored or it is not planned."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "settings": dict(self.setup.settings),
            "peak_bytes": self.setup.peak_bytes,
            "headroom_bytes": self.headroom_bytes,
            "scoring_bytes": self.scoring_bytes,
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
    scoring_bytes: int | None
    """What scoring takes as it is; None where nothing is scored or it is not planned."""
    num_processes: int = 1
    """How many train together, each on such a device."""

    @property
    def fits_now(self) -> bool:
        """Tell whether the recipe fits as it is, its scoring included."""
        return max(self.now.peak_bytes, self.scoring_bytes or 0) <= self.device.total_bytes

    def to_json(self) -> dict[str, Any]:
        """Return what `fit --json` prints."""
        return {
            "schema_version": 1,
            "device": {"name": self.device.name, "total_bytes": self.device.total_bytes},
            "num_processes": self.num_processes,
            "fits_now": self.fits_now,
            "peak_bytes": self.now.peak_bytes,
            "scoring_bytes": self.scoring_bytes,
            "speed": self.now.speed.to_json(),
            "proposals": [proposal.to_json() for proposal in self.proposals],
            "pinned": dict(self.pinned),
        }
