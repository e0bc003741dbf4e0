"""Propose the fastest set of changes that makes a recipe fit a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.memory.devices import Device
from peftkit.memory.levers import read_levers
from peftkit.memory.proposal import Fit, Proposal
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
    proposals = [
        Proposal(setup, search.changes(now, setup), device.total_bytes - setup.peak_bytes)
        for setup in setups
    ]
    pinned = {key: recipe.lines.get(key) for key in search.levers.pinned()}
    return Fit(device, now, tuple(proposals), pinned)
