"""What a merge of several adapters says about the adapter that it makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Compression:
    """Say how a combined change becomes a new LoRA by a singular value decomposition."""

    rank: int | None = None
    """The new adapter's; the largest rank that goes in when None."""
    clamp: float | None = None
    """Quantile of both factors' numbers beyond which they are cut off; no cut when None."""
