"""Weighted sums: of factors (`linear`), or of whole changes (`cat`, `svd`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from peftkit.merges.options import SvdWeights, Weights
from peftkit.plugins import Merge
from peftkit.plugins.combined import Compression

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


def weighted_sum(parts: Sequence[F64], weights: Sequence[float]) -> F64:
    """Return the sum of weight times part."""
    total = weights[0] * parts[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += weight * part
    return total


class Linear(Merge):
    """Add LoRA's factors: the new A is the weighted sum of the As, the new B that of the Bs.

    Its change is not the weighted sum of the changes: every A meets every B. `svd` and `cat` add
    the changes themselves.
    """

    Config: ClassVar[type] = Weights
    combines: ClassVar[str] = "factors"
    is_linear: ClassVar[bool] = True

    @property
    def compression(self) -> Compression | None:
        """Say how deltas become a new LoRA; None where all their ranks are kept."""
        return self.config.compression if self.combines == "deltas" else None

    def combine(self, parts: Sequence[F64], weights: Sequence[float], name: str) -> F64:  # noqa: ARG002
        """Add."""
        return weighted_sum(parts, weights)


class Svd(Linear):
    """Add the changes; a new adapter is the nearest one of a given rank."""

    Config = SvdWeights
    combines = "deltas"


class Cat(Linear):
    """Add the changes, exactly: a new adapter's rank is the sum of all ranks."""

    combines = "deltas"

    @property
    def compression(self) -> None:
        """Keep every rank."""
        return
