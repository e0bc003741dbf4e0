"""Encoded rows, and what is counted of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

Row = dict[str, Any]
"""Column -> a row's numbers, or its one number."""
IGNORED = -100
"""The label that torch's cross entropy leaves out."""
PICTURES, TEXT = "images", "text"
"""Columns of a row with pictures: their files, and the text that its tokens are made of."""
LENGTH = "length"
"""Under which a method that cuts while it encodes says what the row had; no column of the rows."""


def checked_rows(encoded: Sequence[list[Row] | DataError]) -> list[list[Row]]:
    """Return each example's rows as a model reads them, or raise the first example's error.

    Args:
        encoded: what `Method.encode` gave.
    """
    found = []
    for rows in encoded:
        if isinstance(rows, DataError):
            raise rows
        found.append([{k: value for k, value in row.items() if k != LENGTH} for row in rows])
    return found


@dataclass(frozen=True, slots=True)
class RowCount:
    """Count one row's tokens."""

    length: int
    """Tokens before any cut; of the source, where there is a target."""
    needed: int
    """Smallest `max_length` that keeps a trained token; 0 when none is trained at all."""
    num_tokens: int
    """Tokens once cut, the target's included."""
    num_trained: int
    """What the loss counts of them; 0 leaves the row out."""
    is_cut: bool
    is_ended: bool
    """Whether the last trained token is still there."""
    target_length: int = 0
    """Tokens of the target before any cut; 0 where there is none."""


def count_sequence(labels: np.ndarray, limit: int | None, *, keeps_end: bool = False) -> RowCount:
    """Count a row of one sequence, of which the tokens with a label are trained.

    Args:
        limit: where it is cut; None where it is not.
        keeps_end: whether its start is cut off.
    """
    length = len(labels)
    limit = length if limit is None else limit
    trained = (labels != IGNORED).nonzero()[0]
    if not len(trained):
        return RowCount(length, 0, min(length, limit), 0, length > limit, False)
    first, last = int(trained[0]), int(trained[-1])
    start = max(length - limit, 0) if keeps_end else 0
    return RowCount(
        length=length,
        needed=length - last if keeps_end else first + 1,
        num_tokens=min(length, limit),
        num_trained=int(((trained >= start) & (trained < start + limit)).sum()),
        is_cut=length > limit,
        is_ended=start <= last < start + limit,
    )


def column_lengths(rows: Dataset, column: str) -> list[int]:
    """Return how many numbers each row has in a column of lists."""
    lengths: list[int] = []
    for batch in rows.with_format("arrow").iter(10_000):
        lengths += batch[column].combine_chunks().value_lengths().to_pylist()
    return lengths


@dataclass(frozen=True)
class Point:
    """Say how large a micro-batch is, and in what layout its rows lie."""

    micro_batch: int
    length: int
    """Tokens a row, padding included."""
    layout: str = "full"
    """`full`: rows of one length; `padded`: rows of several lengths, so that attention needs a
    mask; `packed`: one row of all documents, with the mask that keeps them apart; `flat`: the
    same for a kernel that needs no mask."""
    target_length: int = 0
    """Tokens that an encoder-decoder writes for each row, padding included; `length` is what its
    encoder reads then."""

    @property
    def num_tokens(self) -> int:
        """Return the positions of one forward."""
        return self.micro_batch * self.length
