"""Which rows belong to which split: a native one, or a share cut from the training rows.

The cut goes by a hash of what the model is asked (a conversation without its last answer, or the
whole text), so it does not depend on the rows' order or on the other rows, and two rows with the
same question always fall on the same side: nothing asked in evaluation was seen in training.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from peftkit.errors import DataError
from peftkit.plugins.examples import Example
from peftkit.recipe.split_values import Slice, read_split

TRAIN = "train"
SALT = b"peftkit-split-1"
"""Seeds the cut; fixed, so that runs with different seeds hold out the same rows."""


@dataclass(frozen=True)
class SplitPlan:
    """Say where each split's rows come from."""

    native: Mapping[str, tuple[Slice, ...]]
    """Split -> the source's splits, or rows of them."""
    cuts: Mapping[str, Fraction | int]
    """Split -> share of the training rows, or a number of them."""


def plan_splits(splits: Mapping[str, str], *, key: str = "data.splits") -> SplitPlan:
    """Read one source's splits.

    Args:
        key: where they stand in the recipe.

    Raises:
        DataError: shares without a `train` to cut them from, or that leave it nothing.
    """
    values = {name: read_split(value) for name, value in splits.items()}
    native = {name: value.slices for name, value in values.items() if not value.is_cut}
    cuts: dict[str, Fraction | int] = {
        name: value.count if value.share is None else value.share  # type: ignore[misc]
        for name, value in sorted(values.items())
        if value.is_cut
    }
    if TRAIN not in native and (cuts or key == "data.splits"):
        raise DataError(f"{key} names no native split for train", hint=f"{key}: {{train: train}}")
    total = sum(share for share in cuts.values() if isinstance(share, Fraction))
    if not all(cuts.values()) or total >= 1:
        shown = ", ".join(f"{name} {splits[name]}" for name in cuts)
        raise DataError(
            f"{key} cuts {shown} from train: each must be above 0 % and together below 100 %"
        )
    return SplitPlan(native, cuts)


def to_shares(cuts: Mapping[str, Fraction | int], keys: Sequence[bytes]) -> dict[str, Fraction]:
    """Turn numbers of rows into the shares that hold as many.

    Rows that ask the same stay together, so that a cut can hold a few more than its number.

    Args:
        keys: of all rows that are cut from.

    Raises:
        ValueError: a number, with those before it, leaves nothing to train on.
    """
    shares: dict[str, Fraction] = {}
    positions = sorted(position_of(key) for key in keys)
    for name, cut in cuts.items():
        before = sum(shares.values(), Fraction(0))
        if isinstance(cut, Fraction):
            shares[name] = cut
            continue
        behind = positions[bisect_left(positions, before) :]
        last = behind[cut - 1] if cut <= len(behind) else None
        if last is None or last == positions[-1]:
            raise ValueError(f"{cut} of {len(behind)} rows leave none to train on")
        shares[name] = last - before + Fraction(1, 2**64)
    return shares


def content_key(row: Mapping[str, Any], example: Example | None) -> bytes:
    """Return a key that is equal for rows in which the model is asked the same.

    Args:
        example: None for a row that cannot be used; then the whole row counts.
    """
    return _digest(dict(row) if example is None else example.asked)


def _digest(content: Any) -> bytes:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16, key=SALT).digest()


def split_key(row: Mapping[str, Any], example: Example | None) -> bytes:
    """Return a key that is equal for rows that must fall on one side of a cut.

    Args:
        example: None for a row that cannot be used; then the whole row counts.
    """
    return _digest(dict(row) if example is None else example.kept_together)


def assign(key: bytes, cuts: Mapping[str, Fraction]) -> str:
    """Return the split that a row falls into: `train`, or one of the cuts."""
    position = position_of(key)
    for name, share in cuts.items():
        if position < share:
            return name
        position -= share
    return TRAIN


def position_of(key: bytes) -> Fraction:
    """Return a row's place in [0, 1), uniform over keys."""
    return Fraction(int.from_bytes(key[:8]), 2**64)


def smallest_share(keys: Sequence[bytes], cuts: Mapping[str, Fraction], name: str) -> str | None:
    """Return the smallest whole percentage at which a cut would hold a row; None if none does."""
    before = sum(share for other, share in cuts.items() if other < name)
    positions = [position_of(key) - before for key in keys]
    for percent in range(1, 51):
        if any(0 <= position < Fraction(percent, 100) for position in positions):
            return f"{percent}%"
    return None
