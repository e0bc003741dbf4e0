"""TIES: keep the largest numbers of each adapter, elect a sign, average those that have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from peftkit.merges.arithmetic import Linear
from peftkit.merges.options import Election, SvdElection
from peftkit.merges.pruning import keep_largest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]


def elected_mean(parts: Sequence[F64], weights: Sequence[float], method: str) -> F64:
    """Average the weighted numbers whose sign is the elected one, place by place.

    The vote is taken before weighing, zero votes for plus, and the divisor is the number of parts
    that agree, as in peft. Source: TIES-Merging, arXiv:2306.01708.

    Args:
        method: `total` sums the numbers themselves for the vote, `frequency` their signs.
    """
    import numpy as np

    votes = np.zeros_like(parts[0])
    for part in parts:
        votes += part if method == "total" else np.sign(part)
    is_plus = votes >= 0
    votes.fill(0.0)
    # Few bytes a number where that is enough: a tensor may be gigabytes.
    total, num_agreeing = votes, np.zeros(votes.shape, np.uint16)
    for part, weight in zip(parts, weights, strict=True):
        agrees = np.where(is_plus, part > 0, part < 0)
        np.add(total, weight * part, out=total, where=agrees)
        num_agreeing += agrees
    np.maximum(num_agreeing, 1, out=num_agreeing)
    total /= num_agreeing
    return total


class Ties(Linear):
    """Keep the largest numbers of every A and B, elect signs, average those that agree."""

    Config = Election
    is_linear = False

    def combine(self, parts: Sequence[F64], weights: Sequence[float], name: str) -> F64:  # noqa: ARG002
        """Prune, elect and average."""
        kept = [keep_largest(part, self.config.density) for part in parts]
        return elected_mean(kept, weights, self.config.majority_sign_method)


class TiesSvd(Ties):
    """Keep the largest numbers of every change, elect signs, average those that agree."""

    Config = SvdElection
    combines = "deltas"
