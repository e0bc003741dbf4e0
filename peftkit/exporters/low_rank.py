"""Factor a matrix into two thin ones, and measure what that loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_EXACT_SIZE = 1024
"""Smaller side up to which all singular values are computed; above, the largest ones only."""
_NEGLIGIBLE = 1e-7
"""Singular values below this share of the largest are float32's rounding."""


@dataclass(frozen=True)
class Factors:
    """Hold left @ right, in float32."""

    right: Tensor
    """lora_A, shape (rank, columns)."""
    left: Tensor
    """lora_B, shape (rows, rank)."""

    @property
    def rank(self) -> int:
        """Return how many columns `left` has."""
        return self.left.shape[1]

    def padded(self, rank: int) -> Factors:
        """Return the same product at a larger rank, filled with zeros."""
        import torch

        more = rank - self.rank
        right = torch.nn.functional.pad(self.right, (0, 0, 0, more))
        return Factors(right, torch.nn.functional.pad(self.left, (0, more)))

    def squared_error(self, matrix: Tensor) -> float:
        """Return the sum of squares of (matrix - product), in float64."""
        difference = matrix.double() - self.left.double() @ self.right.double()
        return float((difference**2).sum())


def factor(matrix: Tensor, max_rank: int) -> Factors:
    """Return the best factors of a rank of at most `max_rank`; fewer where no more is needed.

    Both factors carry the square root of the singular values, so that neither is far from one in
    size. Large matrices get a randomized decomposition with six power iterations.
    """
    import torch

    rank = min(max_rank, *matrix.shape)
    if min(matrix.shape) <= _EXACT_SIZE:
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            wanted = min(2 * rank + 16, *matrix.shape)
            u, s, v = torch.svd_lowrank(matrix.double(), q=wanted, niter=6)
        vh = v.T
    needed = int((s > s[0] * _NEGLIGIBLE).sum()) if float(s[0]) > 0 else 1
    rank = max(1, min(rank, needed))
    root = s[:rank].sqrt()
    right, left = root[:, None] * vh[:rank], u[:, :rank] * root
    return Factors(right.float().contiguous(), left.float().contiguous())
