"""Let a run's processes read rows together, each its share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from peftkit.system.process import this_process

Found = TypeVar("Found")


def shared(
    order: Sequence[int], read: Callable[[Sequence[int]], Mapping[int, Found]]
) -> dict[int, Found]:
    """Return what is found in each row, whichever process reads it; every process gets all.

    A process that no launcher started reads all of them.

    Args:
        order: numbers of rows, those of like length beside each other.
        read: reads rows of these numbers; called once in every process.
    """
    process = this_process()
    found: Mapping[int, Found] = {}
    with process.together():
        found = read(order[process.rank :: process.world_size])
    parts = process.gather(found)
    return {index: one for part in parts for index, one in part.items()}
