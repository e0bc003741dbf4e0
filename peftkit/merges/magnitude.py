"""Keep the largest numbers of each adapter, then add."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.merges.arithmetic import Linear, weighted_sum
from peftkit.merges.options import Density, SvdDensity
from peftkit.merges.pruning import keep_largest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


class MagnitudePrune(Linear):
    """Keep the largest numbers of every A and B, then add them as `linear` does."""

    Config = Density
    is_linear = False

    def combine(self, parts: Sequence[F64], weights: Sequence[float], name: str) -> F64:  # noqa: ARG002
        """Prune and add."""
        density = self.config.density
        return weighted_sum([keep_largest(part, density) for part in parts], weights)


class MagnitudePruneSvd(MagnitudePrune):
    """Keep the largest numbers of every change, then add the changes."""

    Config = SvdDensity
    combines = "deltas"
