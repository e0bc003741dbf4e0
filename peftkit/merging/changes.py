"""What happens to one base tensor: a change, which is loaded once and then applied to rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.merging.rounding import STORAGE, to_float64
from peftkit.merging.weights_io import Tensor, read_into, reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

Rows: TypeAlias = "Callable[[F64, int], F64]"
"""(rows of the base as a matrix, number of the first one) -> the same rows, changed."""


@dataclass(frozen=True)
class Change:
    """Say how one base tensor changes, and which adapter tensors that takes."""

    uses: tuple[str, ...]
    """Names as the adapter's file has them."""
    load: Callable[[Matrix], Rows] = field(repr=False)
    """Read what is needed and return the function of rows; gets the base for methods that must
    see all of it first."""
    is_stack: bool = False
    """Whether rows are those of a stack's matrices: `Tensor.as_stack`."""
    num_rows: int = 0
    """Rows of the result, where it brings some behind the base's: those of tokens that were added.
    The functions see zeros in their place."""


@dataclass(frozen=True)
class LowRank:
    """Add `scale * left @ right`; the engine knows this one and computes it in float32 tiles.

    Shapes: left [rows, r], right [r, columns]; for a stack of matrices left [E, rows, r] and
    right [E, r, columns].
    """

    left: F64
    right: F64
    scale: float

    def __call__(self, rows: F64, start: int) -> F64:
        """Return the rows with the product added, all in float64."""
        stack, changed = self.as_stack(), rows.copy()
        rows_each = stack.left.shape[1]
        for expert, begin, end in stack_parts(start, len(rows), rows_each):
            first = expert * rows_each - start
            part = stack.left[expert, begin:end] @ stack.right[expert]
            changed[first + begin : first + end] += self.scale * part
        return changed

    def as_stack(self) -> LowRank:
        """Return the same change with a leading axis of matrices."""
        if self.left.ndim == 3:
            return self
        return LowRank(self.left[None], self.right[None], self.scale)


def stack_parts(start: int, num: int, rows_each: int) -> list[tuple[int, int, int]]:
    """Cut `num` rows of a stack into (matrix, its first row, its end)."""
    parts, row = [], start
    while row < start + num:
        index, begin = divmod(row, rows_each)
        end = min(rows_each, begin + start + num - row)
        parts.append((index, begin, end))
        row += end - begin
    return parts


@dataclass(frozen=True)
class Matrix:
    """Read rows of a stored tensor as float64."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, columns); see `Tensor.row_shape`."""
        return self.tensor.row_shape

    def rows(self, start: int, stop: int) -> F64:
        """Read some rows."""
        import numpy as np

        _, columns = self.shape
        stored = np.empty((stop - start, columns), dtype=STORAGE[self.tensor.dtype])
        with reading(self.tensor.file) as descriptor:
            offset = self.tensor.offset + start * columns * stored.itemsize
            read_into(descriptor, memoryview(stored.data).cast("B"), offset, self.tensor.file)
        return to_float64(stored, self.tensor.dtype)

    def tiles(self, num_elements: int = 1 << 20) -> Any:
        """Go through all rows, a tile at a time."""
        num_rows, columns = self.shape
        step = max(1, num_elements // max(1, columns))
        for start in range(0, num_rows, step):
            yield start, self.rows(start, min(num_rows, start + step))


def read_float64(tensor: Tensor) -> F64:
    """Read a whole tensor, in its own shape."""
    values = Matrix(tensor).rows(0, tensor.num_rows) if math.prod(tensor.shape) else None
    import numpy as np

    return np.zeros(tensor.shape) if values is None else values.reshape(tensor.shape)
