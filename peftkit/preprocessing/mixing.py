"""Mix the training rows of several sources: each row as often as its source's weight says.

The order is fixed by the rows alone. A source's rows keep their order and are spread evenly over
the epoch, so that texts which are packed, or never shuffled, meet every source all along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SourceShare:
    """Count what one of several sources gives to a split."""

    num_rows: int
    """Rows that the source gave."""
    num_used: int
    """Rows of them that are trained on or scored."""
    weight: float
    """How often an epoch sees each."""
    num_seen: int
    """Rows that an epoch sees of it."""


def num_copies(key: bytes, weight: float) -> int:
    """Return how often an epoch sees a row; a hash says who belongs to a weight's fraction.

    Args:
        key: of its content; the bytes that a split's cut does not go by are read.
    """
    whole = int(weight)
    return whole + (int.from_bytes(key[8:16]) < (weight - whole) * 2**64)


def mix(sources: Sequence[int], copies: Sequence[int]) -> list[int]:
    """Return the rows of an epoch by their index, each source's spread evenly over it.

    Args:
        sources: the number of each row's source.
        copies: how often each row is seen.
    """
    passes: dict[int, list[int]] = {}
    for source in sorted(set(sources)):
        own = [at for at, one in enumerate(sources) if one == source]
        most = max(copies[at] for at in own)
        passes[source] = [at for turn in range(most) for at in own if copies[at] > turn]
    placed = [
        ((2 * place + 1) / (2 * len(rows)), source, at)
        for source, rows in passes.items()
        for place, at in enumerate(rows)
    ]
    return [at for _, _, at in sorted(placed, key=lambda one: one[:2])]
