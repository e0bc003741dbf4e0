"""Rewards of single answers, for methods that learn from a model's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from peftkit.plugins import Reward


class ExactMatch(Reward):
    """Give 1 to an answer that is the reference but for outer whitespace, and 0 to others."""

    Config = None

    def score(
        self, prompts: Sequence[str], answers: Sequence[str], references: Sequence[str]
    ) -> list[float]:
        """Compare each answer with its reference."""
        del prompts
        pairs = zip(answers, references, strict=True)
        return [float(answer.strip() == reference.strip()) for answer, reference in pairs]


class SimilarLength(Reward):
    """Give 1 to an answer of as many words as the reference, and half to one of twice or half."""

    Config = None

    def score(
        self, prompts: Sequence[str], answers: Sequence[str], references: Sequence[str]
    ) -> list[float]:
        """Compare the numbers of words."""
        del prompts
        pairs = zip(answers, references, strict=True)
        return [_share(len(one.split()), len(other.split())) for one, other in pairs]


def _share(one: int, other: int) -> float:
    return math.exp(-abs(math.log(max(one, 1) / max(other, 1))))
