"""Mask words as BERT does: which tokens are predicted, and what is read in their place.

Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1; whole words as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.plugins.rows import IGNORED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Masking:
    """Say how many tokens are predicted, and what stands in their place."""

    mask_id: int
    vocab_size: int
    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    whole_word_mask: bool = False

    def mask(
        self, ids: NDArray[np.int32], starts: NDArray[np.int32], rng: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return what is read, and the labels: a token's id where it is predicted.

        Args:
            ids: tokens of a row, its special ones included.
            starts: whether each begins a word (1, or more), goes on (0), or is special (-1).
        """
        import numpy as np

        chosen = self.choose(starts, rng)
        labels = np.full(len(ids), IGNORED, np.int32)
        labels[chosen] = ids[chosen]
        read = ids.copy()
        fate = rng.random(len(chosen))
        read[chosen[fate < self.mask_replace_prob]] = self.mask_id
        others = chosen[
            (fate >= self.mask_replace_prob)
            & (fate < self.mask_replace_prob + self.random_replace_prob)
        ]
        read[others] = rng.integers(self.vocab_size, size=len(others))
        return read, labels

    def choose(self, starts: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose which tokens of a row are predicted: so many, whatever is drawn."""
        import numpy as np

        places = np.flatnonzero(starts >= 0)
        wanted = min(num_predictions(len(starts), self.mlm_probability), len(places))
        if not self.whole_word_mask:
            return rng.permutation(places)[:wanted]
        words = np.split(places, np.flatnonzero(starts[places] > 0)[1:])
        chosen: list[int] = []
        for at in rng.permutation(len(words)):
            if len(chosen) + len(words[at]) <= wanted:
                chosen.extend(words[at])
        return np.asarray(chosen or places[:wanted], np.int64)


def num_predictions(length: int, mlm_probability: float) -> int:
    """Return how many tokens are predicted of a row of a length, special tokens counted."""
    return max(1, int(length * mlm_probability + 0.5))
