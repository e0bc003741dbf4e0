"""Propose the fastest set of changes that makes a recipe fit a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.memory.devices import Device
from peftkit.memory.levers import read_levers
from peftkit.memory.proposal import Change, Fit, Proposal, Setup
from peftkit.memory.search import Search

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe


def fit(
    recipe: Recipe,
    device: Device,
    *,
    free: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
    num_processes: int = 1,
) -> Fit:
    """Find the settings that fit a device, the fastest first; the global batch stays.

    Args:
        free: dotted keys that stand in the recipe and may be changed all the same.
        lengths: tokens of each training row, as for `plan`.
        num_processes: how many train together, each on such a device.

    Raises:
        UsageError: `free` names what fit never changes.
        ResourceError: nothing that is open fits; says by how much, and what would.
    """
    levers = read_levers(recipe, device.as_machine(), free=free)
    search = Search(recipe, device, levers, lengths, num_processes)
    now = search.as_it_is()
    setups = search.setups()
    if not setups:
        raise search.refusal()
    proposals = tuple(_propose(search, now, setup) for setup in setups)
    pinned = {key: recipe.lines.get(key) for key in search.levers.pinned()}
    return Fit(device, now, proposals, pinned, search.scored({}).num_bytes, num_processes)


def _propose(search: Search, now: Setup, setup: Setup) -> Proposal:
    """Say what a setup changes, and add fewer prompts at once where its scoring would not fit."""
    headroom, changes = search.device.total_bytes - setup.peak_bytes, search.changes(now, setup)
    scored = search.scored(setup.settings)
    if scored.batch_size is not None and scored.num_bytes and scored.fitting_bytes:
        settings = {"evaluate.batch_size": scored.batch_size}
        saved = scored.num_bytes - scored.fitting_bytes
        changes = (*changes, Change("scoring", settings, saved, 1.0))
        setup = dataclasses.replace(setup, settings={**setup.settings, **settings})
    return Proposal(setup, changes, headroom, scored.fitting_bytes)
