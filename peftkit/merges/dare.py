"""DARE: drop numbers of each adapter at random, rescale the rest, then add or elect signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.merges.arithmetic import Linear, weighted_sum
from peftkit.merges.options import Chance, ChanceElection, SvdChance, SvdChanceElection
from peftkit.merges.pruning import keep_random
from peftkit.merges.ties import elected_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


class DareLinear(Linear):
    """Drop numbers of every A and B at random, rescale the rest, then add them as `linear` does."""

    Config = Chance
    is_linear = False

    def combine(self, parts: Sequence[F64], weights: Sequence[float], name: str) -> F64:
        """Drop, rescale and add."""
        chance = self.config
        kept = keep_random(parts, chance.density, seed=chance.seed, name=name)
        return weighted_sum(kept, weights)


class DareLinearSvd(DareLinear):
    """Drop numbers of every change at random, rescale the rest, then add the changes."""

    Config = SvdChance
    combines = "deltas"


class DareTies(Linear):
    """Drop numbers of every A and B at random, rescale the rest, then elect signs as `ties`."""

    Config = ChanceElection
    is_linear = False

    def combine(self, parts: Sequence[F64], weights: Sequence[float], name: str) -> F64:
        """Drop, rescale, elect and average."""
        chance = self.config
        kept = keep_random(parts, chance.density, seed=chance.seed, name=name)
        return elected_mean(kept, weights, chance.majority_sign_method)


class DareTiesSvd(DareTies):
    """Drop numbers of every change at random, rescale the rest, then elect signs as `ties_svd`."""

    Config = SvdChanceElection
    combines = "deltas"
