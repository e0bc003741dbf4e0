"""Set most numbers of a tensor to zero: the small ones, or any."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


def keep_largest(values: F64, density: float) -> F64:
    """Keep `int(density * size)` numbers of the largest size, the earlier one of two equals."""
    import numpy as np

    num_kept = int(density * values.size)
    if num_kept >= values.size:
        return values
    if num_kept == 0:
        return np.zeros_like(values)
    sizes = np.abs(values).reshape(-1)
    sizes.partition(values.size - num_kept)
    smallest = sizes[values.size - num_kept]
    np.abs(values.reshape(-1), out=sizes)
    kept = sizes > smallest
    equal = np.flatnonzero(sizes == smallest)
    kept[equal[: num_kept - int(np.count_nonzero(kept))]] = True
    result: F64 = np.where(kept.reshape(values.shape), values, 0.0)
    return result


def keep_random(parts: Sequence[F64], density: float, *, seed: int, name: str) -> list[F64]:
    """Keep each number with probability `density`, and divide what is kept by it.

    The mask of part i of a tensor is `default_rng([seed, crc32(name), i]).random(shape) < density`,
    so that neither the order of tensors nor the number of workers matters.
    Source: DARE, arXiv:2311.03099.
    """
    import numpy as np

    if density >= 1:
        return list(parts)
    kept = []
    for index, part in enumerate(parts):
        generator = np.random.default_rng([seed, zlib.crc32(name.encode()), index])
        mask = generator.random(part.shape) < density
        kept.append(np.where(mask, part / density, 0.0))
    return kept
