"""What `data.splits` may say: a native split, a slice of it, a share or a number of rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_SHARE = re.compile(r"(-?\d+(?:\.\d+)?)\s*%")
_SLICE = re.compile(
    r"(?P<name>[^\[\]()]+?)"
    r"(?:\[(?P<low>-?[\d_]+)?(?P<low_unit>%)?:(?P<high>-?[\d_]+)?(?P<high_unit>%)?\])?"
    r"(?:\((?P<rounding>closest|pct1_dropremainder)\))?"
)
EXAMPLES = "a native split's name, 5%, 500, or a slice: train[:1000], train[10%:]"


@dataclass(frozen=True)
class Slice:
    """Name a native split, or some of its rows, in datasets' own terms."""

    name: str
    low: int | None = None
    high: int | None = None
    is_percent: bool = False
    rounding: str | None = None

    @property
    def is_whole(self) -> bool:
        """Tell whether it is the whole split."""
        return self.low is None and self.high is None

    def rows(self, num_rows: int) -> range:
        """Return which of a split's rows it holds, as datasets rounds them."""
        from datasets import ReadInstruction

        unit = "%" if self.is_percent else "abs"
        rounding = self.rounding or ("closest" if self.is_percent else None)
        read = ReadInstruction("rows", rounding=rounding, from_=self.low, to=self.high, unit=unit)
        (found,) = read.to_absolute({"rows": num_rows})
        return range(found.from_, found.to)


@dataclass(frozen=True)
class SplitValue:
    """Hold one value of `data.splits`, read: exactly one of the three is there."""

    share: Fraction | None = None
    """Of the training rows, cut from them."""
    count: int | None = None
    """Rows, cut from the training rows."""
    slices: tuple[Slice, ...] = ()
    """Of native splits, one after the other."""

    @property
    def is_cut(self) -> bool:
        """Tell whether its rows are taken out of the training rows."""
        return not self.slices


def read_split(text: str) -> SplitValue:
    """Read one value of `data.splits`.

    Raises:
        ValueError: it is none of what may stand there; says why.
    """
    text = text.strip()
    share = _SHARE.fullmatch(text)
    if share:
        return SplitValue(share=Fraction(share[1]) / 100)
    if re.fullmatch(r"\d[\d_]*", text):
        return SplitValue(count=int(text))
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise ValueError(f"{text} is no number of rows")
    return SplitValue(slices=tuple(_read_slice(term) for term in re.split(r"\s*\+\s*", text)))


def _read_slice(text: str) -> Slice:
    match = _SLICE.fullmatch(text)
    if not match:
        if not any(sign in text for sign in "[]()"):
            return Slice(text)
        raise ValueError(f"{text!r} is no slice in datasets' syntax")
    low, high = (None if match[side] is None else int(match[side]) for side in ("low", "high"))
    units = {match["low_unit"] for _ in "x" if low is not None} | {
        match["high_unit"] for _ in "x" if high is not None
    }
    if (match["low_unit"] and low is None) or (match["high_unit"] and high is None):
        raise ValueError(f"{text!r} has a % without a number")
    if len(units) > 1:
        raise ValueError(f"{text!r} counts one end in rows and the other in %")
    is_percent = units == {"%"}
    for end in (low, high):
        if is_percent and end is not None and abs(end) > 100:
            raise ValueError(f"{text!r} goes beyond 100%")
    is_empty = low is not None and high is not None and (low < 0) == (high < 0) and low >= high
    if is_empty or high == 0:
        raise ValueError(f"{text!r} holds no rows")
    return Slice(match["name"].strip(), low, high, is_percent, match["rounding"])
