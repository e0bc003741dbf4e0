"""What is reached without reading is said beside what is reached by it."""

from __future__ import annotations

import math

from peftkit.methods.masked_scores import _baselines

ROWS = [
    {"labels": [-100, 5, 5, -100], "next_sentence_label": 1},
    {"labels": [5, 7], "next_sentence_label": 0},
]


def test_frequencies_are_those_of_the_answers() -> None:
    words, pairs = _baselines(ROWS)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert words == (
        f"Masked words, 4 of them, by their frequency alone: accuracy 0.750, loss {entropy:.3f}."
    )
    assert pairs == "Next sentences: 0.500 of 2 pairs are random."
    assert len(list(_baselines([{"labels": [3]}]))) == 1
