"""Which rows belong to which split: a native one, or a share cut from the training rows.

The cut goes by a hash of what the model is asked (a conversation without its last answer, or the
whole text), so it does not depend on the rows' order or on the other rows, and two rows with the
same question always fall on the same side: nothing asked in evaluation was seen in training.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from peftkit.errors import DataError
from peftkit.plugins.examples import Example

TRAIN = "train"
SALT = b"peftkit-split-1"
"""Seeds the cut; fixed, so that runs with different seeds hold out the same rows."""

_PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class SplitPlan:
    """Say where each split's rows come from."""

    native: Mapping[str, str]
    """Split -> the source's split."""
    cuts: Mapping[str, Fraction]
    """Split -> share of the native training rows."""


def plan_splits(splits: Mapping[str, str]) -> SplitPlan:
    """Read the recipe's `data.splits`.

    Raises:
        DataError: no `train`, or shares that leave it nothing.
    """
    cuts, native = {}, {}
    for name, value in splits.items():
        match = _PERCENTAGE.fullmatch(value.strip())
        if match:
            cuts[name] = Fraction(match.group(1)) / 100
        else:
            native[name] = value
    if TRAIN not in native:
        raise DataError(
            "data.splits names no native split for train", hint="data.splits: {train: train}"
        )
    total = sum(cuts.values())
    if any(not share for share in cuts.values()) or total >= 1:
        shown = ", ".join(f"{name} {splits[name]}" for name in cuts)
        raise DataError(
            f"data.splits cuts {shown} from train: each must be above 0 % and together below 100 %"
        )
    return SplitPlan(native, dict(sorted(cuts.items())))


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
