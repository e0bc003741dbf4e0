"""Options that the built-in merges share, under the names of peft's `add_weighted_adapter`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftkit.plugins.combined import Compression


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weigh the adapters."""

    weights: list[float]
    """One for each adapter, in their order; negative ones subtract."""


@dataclass(frozen=True, kw_only=True)
class Svd:
    """Bound the new adapter's rank; only with `--to adapter`."""

    svd_rank: int | None = None
    """The new LoRA's rank; the largest of the adapters' ranks when absent."""
    svd_clamp: float | None = None
    """Quantile of the new factors' numbers beyond which they are cut off."""

    @property
    def compression(self) -> Compression:
        """Return what is asked of the singular value decomposition."""
        return Compression(self.svd_rank, self.svd_clamp)


@dataclass(frozen=True, kw_only=True)
class SvdWeights(Weights, Svd):
    """Weigh the adapters, and bound the new one's rank."""


@dataclass(frozen=True, kw_only=True)
class Density(Weights):
    """Weigh the adapters after most of each one's numbers became zero."""

    density: float
    """Share of each tensor's numbers that is kept."""


@dataclass(frozen=True, kw_only=True)
class SvdDensity(Density, Svd):
    """Prune and weigh the adapters, and bound the new one's rank."""


@dataclass(frozen=True, kw_only=True)
class Election(Density):
    """Prune the adapters, let them elect a sign for every number, and weigh those that have it."""

    majority_sign_method: Literal["total", "frequency"] = "total"
    """Elect by the sum of the numbers (`total`) or of their signs (`frequency`)."""


@dataclass(frozen=True, kw_only=True)
class SvdElection(Election, Svd):
    """Prune, elect and weigh, and bound the new adapter's rank."""


@dataclass(frozen=True, kw_only=True)
class Chance(Density):
    """Prune the adapters at random; what is left grows so that the expectation stays."""

    seed: int = 0
    """Decides, with the tensor's name, which numbers are kept."""


@dataclass(frozen=True, kw_only=True)
class SvdChance(Chance, Svd):
    """Prune at random and weigh, and bound the new adapter's rank."""


@dataclass(frozen=True, kw_only=True)
class ChanceElection(Election, Chance):
    """Prune at random, then elect signs."""


@dataclass(frozen=True, kw_only=True)
class SvdChanceElection(ChanceElection, Svd):
    """Prune at random and elect signs, and bound the new adapter's rank."""
