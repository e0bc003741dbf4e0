"""Arithmetic of low-rank changes: add them, measure them, find the nearest one of a rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.merging.changes import LowRank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

# Shapes: O outputs, I inputs, R ranks.


def weighted_low_rank(parts: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """Return the weighted sum of low-rank changes: their factors side by side."""
    import numpy as np

    scaled = [weight * part.scale * part.left for part, weight in zip(parts, weights, strict=True)]
    left = np.concatenate(scaled, axis=-1)
    right = np.concatenate([part.right for part in parts], axis=-2)
    return LowRank(left, right, 1.0)


def norm(change: LowRank) -> float:
    """Return the root of the sum of squares of a change, without making its product."""
    import numpy as np

    stack = change.as_stack()
    squares = [
        np.square(_core(left, right)).sum()
        for left, right in zip(stack.left, stack.right, strict=True)
    ]
    return abs(change.scale) * float(np.sqrt(sum(squares)))


def distance(one: LowRank, other: LowRank) -> float:
    """Return the norm of the difference of two changes."""
    return norm(weighted_low_rank((one, other), (1.0, -1.0)))


def nearest(change: LowRank | F64, rank: int) -> tuple[F64, F64]:
    """Return b_OR and a_RI, whose product is the nearest to a change among all of this rank.

    The singular values are in B, as peft's `svd` has them. Where the change has a smaller rank,
    so has the result.
    """
    if isinstance(change, LowRank):
        return _nearest_of_product(change, rank)
    return _nearest_of_matrix(change, rank)


def _core(left: F64, right: F64) -> F64:
    """Return a small matrix with the singular values of left @ right."""
    import numpy as np

    core: F64 = np.linalg.qr(left).R @ np.linalg.qr(right.T).R.T
    return core


def _nearest_of_product(change: LowRank, rank: int) -> tuple[F64, F64]:
    import numpy as np

    left, left_core = np.linalg.qr(change.scale * change.left)
    right, right_core = np.linalg.qr(change.right.T)
    u, singular, v = np.linalg.svd(left_core @ right_core.T, full_matrices=False)
    rank = min(rank, len(singular))
    return left @ (u[:, :rank] * singular[:rank]), v[:rank] @ right.T


def _nearest_of_matrix(delta_OI: F64, rank: int) -> tuple[F64, F64]:  # noqa: N803
    """Take the leading eigenvectors of the smaller Gram matrix: several times faster than an SVD.

    Singular values below 1e-8 of the largest are lost in it; no stored dtype would keep them.
    """
    import numpy as np

    outputs, inputs = delta_OI.shape
    rank = min(rank, outputs, inputs)
    if inputs < outputs:
        _, vectors = np.linalg.eigh(delta_OI.T @ delta_OI)
        v_IR = vectors[:, ::-1][:, :rank]  # noqa: N806
        return delta_OI @ v_IR, v_IR.T
    _, vectors = np.linalg.eigh(delta_OI @ delta_OI.T)
    u_OR = vectors[:, ::-1][:, :rank]  # noqa: N806
    a_RI = u_OR.T @ delta_OI  # noqa: N806
    singular = np.linalg.norm(a_RI, axis=1)
    return u_OR * singular, a_RI / np.where(singular > 0, singular, 1.0)[:, None]
