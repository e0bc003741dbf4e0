"""Compute one merged tensor tile by tile: float32 where that is enough, float64 where it is not.

A float32 tile is off by a few units in its last place, which rounds about 2 in 100,000 elements
of a bfloat16 result, and 1 in 10,000 of a float16 one, to the wrong neighbour. Those lie within
the tile's error of the middle between two neighbours: they are found by their low bits, and
computed again in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.errors import ArtefactError
from peftkit.merging.changes import LowRank, stack_parts
from peftkit.merging.rounding import STORAGE, from_float64, round_float32, to_float32, to_float64

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftkit.merging.changes import Rows
    from peftkit.merging.workers import Scratch

    Stored = NDArray[np.generic]
    Work = Callable[[Stored, int, Scratch], Stored]

TILE_ELEMENTS = 1 << 18
"""A float32 tile of 1 MiB: with its two companions it stays in a core's second-level cache."""
_MOST_PLACES = {"BF16": 4096, "F16": 1024}
"""Bound on how many last places from a tie are looked at: a quarter of the next finer grid."""
_PIECE = 1 << 14
"""Elements judged at once, so that a tile full of doubtful ones stays small."""
_UNIT = 2.0**-24
"""Largest relative error of one float32 rounding."""
_DROPPED_BITS = {"BF16": 16, "F16": 13}
_LARGEST_SQUARES = {"BF16": math.inf, "F16": 6e4**2, "F32": math.inf}
"""Sum of a tile's squares from which on some element may be larger than the dtype's largest."""
_SMALLEST = {"BF16": 2.0**-120, "F16": 2.0**-14}
"""Below these the dtype's grid, or float32's, is no longer relative: float64 decides."""


@dataclass(frozen=True)
class Job:
    """Hold what turns stored rows of the base into stored rows of the result."""

    name: str
    source_dtype: str
    dtype: str
    columns: int
    functions: tuple[Rows, ...]

    def work(self) -> Work:
        """Return what merges rows: a function of (stored rows, number of the first, scratch).

        It is shared by all workers; its next call with the same scratch writes over what it
        returned.
        """
        if (
            len(self.functions) == 1
            and isinstance(self.functions[0], LowRank)
            and self.dtype in ("BF16", "F16", "F32")
            and self.source_dtype != "F64"
        ):
            return _LowRankTile(self, _Factors(self.functions[0]))
        if not self.functions and self.source_dtype != "F64" and self.dtype != "F64":
            return self._convert
        return lambda stored, start, _: self.in_float64(stored, start)

    def in_float64(self, stored: Stored, start: int) -> Stored:
        """Apply every function in float64 and round once."""
        rows = to_float64(stored, self.source_dtype)
        for function in self.functions:
            rows = function(rows, start)
        return finite(self, from_float64(rows, self.dtype), start)

    def _convert(self, stored: Stored, start: int, scratch: Scratch) -> Stored:
        wide = scratch.take("total", stored.shape, "float32")
        to_float32(stored, self.source_dtype, wide)
        return finite(self, round_float32(wide, self.dtype), start)


def row_tiles(num_rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Cut rows into (start, stop) of about TILE_ELEMENTS each."""
    step = max(1, TILE_ELEMENTS // max(1, columns))
    for start in range(0, num_rows, step):
        yield start, min(num_rows, start + step)


class _Factors:
    """Hold the factors of a product in float64, in float32, and how large they are."""

    def __init__(self, change: LowRank) -> None:
        import numpy as np

        stack = change.as_stack()
        self.scale = stack.scale
        self.rows_each = stack.left.shape[1]
        self.left64 = stack.left.reshape(-1, stack.left.shape[-1])
        # A column's numbers side by side: mending reads some columns here and there.
        self.right64 = np.ascontiguousarray(stack.right.swapaxes(-1, -2))
        with np.errstate(over="ignore", invalid="ignore"):  # seen in the result
            # The scale goes into one factor: one rounding less for each element.
            self.left = (self.scale * self.left64).astype(np.float32)
            self.right = stack.right.astype(np.float32)
        self.left_norms = abs(self.scale) * np.linalg.norm(self.left64, axis=-1)
        self.longest_column = float(np.linalg.norm(stack.right, axis=-2).max())
        # Of sgemm's sum, and of the factors' own roundings to float32.
        self.relative_error = (stack.left.shape[-1] + 3) * _UNIT


class _LowRankTile:
    """Add a low-rank product to tiles in float32, mending what float32 cannot decide."""

    def __init__(self, job: Job, factors: _Factors) -> None:
        self.job, self.factors = job, factors

    def __call__(self, stored: Stored, start: int, scratch: Scratch) -> Stored:
        """Return the merged rows in the result's dtype."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            return self._merge(stored, start, scratch)

    def _merge(self, stored: Stored, start: int, scratch: Scratch) -> Stored:
        import numpy as np

        total = scratch.take("total", stored.shape, "float32")
        spare = scratch.take("spare", stored.shape, "float32")
        to_float32(stored, self.job.source_dtype, total)
        for expert, begin, end in stack_parts(start, len(stored), self.factors.rows_each):
            row = expert * self.factors.rows_each + begin
            part = spare[row - start : row - start + end - begin]
            np.matmul(
                self.factors.left[row : row + end - begin], self.factors.right[expert], out=part
            )
        np.add(total, spare, out=total)
        flat = total.reshape(-1)
        squares = float(np.dot(flat, flat))
        if not squares < _LARGEST_SQUARES[self.job.dtype]:
            return self.job.in_float64(stored, start)
        if self.job.dtype == "F32":
            return total
        result = scratch.take("result", stored.shape, "uint16")
        dropped = scratch.take("dropped", stored.shape, "uint16")
        round_away = _to_bfloat16 if self.job.dtype == "BF16" else _to_float16
        round_away(total, spare.view(np.uint32), result, dropped)
        doubts = _Doubts(self, stored, start, math.sqrt(squares / flat.size))
        for picked in doubts.pick(total, spare, result, dropped):
            doubts.mend(total, picked, result)
        return result.view(STORAGE[self.job.dtype])


class _Doubts:
    """Find what float32 may have rounded to the wrong side, and compute it in float64."""

    def __init__(self, tile: _LowRankTile, stored: Stored, start: int, usual: float) -> None:
        """Bound the error of a tile's products.

        Args:
            usual: size of the tile's elements, which only decides how many are looked at.
        """
        self.job, self.factors, self.stored, self.start = tile.job, tile.factors, stored, start
        longest = float(self.factors.left_norms[start : start + len(stored)].max())
        self.worst = self.factors.relative_error * longest * self.factors.longest_column
        # Looking further from ties makes fewer elements small beside the error: the sum is
        # smallest where the two shares are equal.
        ties_apart = 2.0 ** (_DROPPED_BITS[self.job.dtype] - 1)
        wanted = math.sqrt(ties_apart * self.worst / (_UNIT * usual)) if usual else 0.0
        self.places = int(min(max(32.0, wanted), _MOST_PLACES[self.job.dtype]))

    def pick(
        self,
        total: NDArray[np.float32],
        spare: NDArray[np.float32],
        result: NDArray[np.uint16],
        dropped: NDArray[np.uint16],
    ) -> Iterator[NDArray[np.int64]]:
        """Give, in pieces, the elements that are near a tie or small beside the largest error.

        Cheap and generous: a few in a hundred elements, each of which is then judged by itself.

        Args:
            spare: overwritten.
            dropped: distance from a tie, its sign included, in the highest of 16 bits; overwritten.
        """
        import numpy as np

        width = np.uint16(self.places << (16 - _DROPPED_BITS[self.job.dtype]))
        np.add(dropped, width, out=dropped)
        near = np.less_equal(dropped, width + width)
        # From here on an error is below so many of the value's own last places.
        large = max(self.worst / ((self.places - 2) * _UNIT), _SMALLEST[self.job.dtype])
        if self.job.dtype == "BF16":
            np.bitwise_and(result, np.uint16(0x7FFF), out=dropped)
            above = (int(np.float32(large).view(np.uint32)) >> 16) + 1
            near |= np.less_equal(dropped, np.uint16(min(above, 0x7F7F)))
        else:  # a half that is not normal has been rounded to anything
            near |= np.less(np.abs(total, out=spare), np.float32(large))
        picked = np.flatnonzero(near)
        for begin in range(0, len(picked), _PIECE):
            yield picked[begin : begin + _PIECE]

    def mend(
        self, total: NDArray[np.float32], picked: NDArray[np.int64], result: NDArray[np.uint16]
    ) -> None:
        """Compute again in float64 those of the picked elements that float32 cannot decide."""
        import numpy as np

        factors, dtype = self.factors, self.job.dtype
        some = picked[_is_doubtful(total.reshape(-1)[picked], self.worst, dtype)]
        row, column = np.divmod(some, self.job.columns)
        row += self.start
        exact = to_float64(self.stored.reshape(-1)[some], self.job.source_dtype)
        expert = row // factors.rows_each
        product = np.einsum("nr,nr->n", factors.left64[row], factors.right64[expert, column])
        exact += factors.scale * product
        rounded = from_float64(exact, dtype)
        finite(self.job, rounded, self.start)
        result.reshape(-1)[some] = rounded.view(np.uint16)


def _to_bfloat16(
    total: NDArray[np.float32],
    spare: NDArray[np.uint32],
    result: NDArray[np.uint16],
    dropped: NDArray[np.uint16],
) -> None:
    """Round to nearest, ties away from zero; whoever calls mends the ties."""
    import numpy as np

    np.add(total.view(np.uint32), np.uint32(0x8000), out=spare)
    np.copyto(dropped, spare, casting="unsafe")
    np.right_shift(spare, np.uint32(16), out=spare)
    np.copyto(result, spare, casting="unsafe")


def _to_float16(
    total: NDArray[np.float32],
    spare: NDArray[np.uint32],
    result: NDArray[np.uint16],
    dropped: NDArray[np.uint16],
) -> None:
    """Round to nearest, ties away from zero, where the result is a normal half."""
    import numpy as np

    bits = total.view(np.uint32)
    np.right_shift(bits, np.uint32(16), out=spare)
    np.copyto(result, spare, casting="unsafe")
    np.bitwise_and(result, np.uint16(0x8000), out=result)
    # From the exponent's bias of a float32 to that of a half, and half a unit to round up. What
    # is above 15 bits, the sign and the old exponent's rest, goes.
    np.add(bits, np.uint32((0x1000 - (112 << 23)) & 0xFFFFFFFF), out=spare)
    np.copyto(dropped, spare, casting="unsafe")
    np.left_shift(dropped, np.uint16(3), out=dropped)
    np.right_shift(spare, np.uint32(13), out=spare)
    np.bitwise_and(spare, np.uint32(0x7FFF), out=spare)
    np.bitwise_or(result, spare, out=result, casting="unsafe")


def _is_doubtful(values: NDArray[np.float32], worst: float, dtype: str) -> NDArray[np.bool_]:
    """Tell where a value and what it may really be can round to different neighbours.

    Args:
        worst: largest error of any product in the tile; the sum's own rounding is added here.
    """
    import numpy as np

    dropped = _DROPPED_BITS[dtype]
    bits = values.view(np.uint32)
    power = (bits & np.uint32(0x7F800000)).view(np.float32)
    # Of the sum, at most twice the power of two below it, and of this arithmetic itself.
    error = power * np.float32(6 * _UNIT) + np.float32(1.01 * worst)
    low = (bits & np.uint32((1 << dropped) - 1)).view(np.int32) - np.int32(1 << (dropped - 1))
    doubtful: NDArray[np.bool_] = np.abs(low).astype(np.float32) * power * 2.0**-23 <= error
    # An error this large can cross into the next smaller power of two, whose grid is finer.
    doubtful |= error >= power * np.float32(2.0 ** (dropped - 27))
    doubtful |= power < np.float32(_SMALLEST[dtype])
    if dtype == "F16":
        doubtful |= np.abs(values) >= np.float32(65504.0)
    return doubtful


def finite(job: Job, result: Stored, start: int) -> Stored:
    """Return rows as they are, unless one of them is infinite or not a number.

    Raises:
        ArtefactError: names the tensor and where in it.
    """
    import numpy as np

    if job.dtype == "BF16":
        broken = (result.view(np.uint16) & np.uint16(0x7F80)) == np.uint16(0x7F80)
    else:
        broken = ~np.isfinite(result)
    if broken.any():
        row = start + int(np.argmax(broken.reshape(len(result), -1).any(axis=1)))
        raise ArtefactError(
            f"{job.name} becomes NaN or infinite in row {row}: the adapter (or the base) is broken"
            f" there, or its values do not fit {job.dtype}",
            hint="use an earlier checkpoint of that training",
        )
    return result
