"""The best stretch over all windows is found, as trying every one of them finds it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.preprocessing.windows import Window
from peftkit.scoring.spans import Options, best_threshold, pick_answer

CONTEXT = "sort the keys by name and return"
TOKENS = [(0, 4), (4, 8), (9, 11), (9, 13), (13, 13), (14, 16), (16, 21), (22, 25), (26, 32)]
"""Some count the space before a word to it, some share characters, one has none."""


def window(first: int, last: int) -> Window:
    return Window({"input_ids": [0] * (3 + last - first)}, 2, tuple(TOKENS[first:last]), (0, 0), 0)


def options(**changes) -> Options:
    return Options(**{
        "max_length": 9, "doc_stride": 2, "max_answer_length": 3, "n_best_size": 4,
        "null_score_diff_threshold": 0.0, "has_unanswerable": False, **changes,
    })  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 12), kept=st.integers(1, 9),
       threshold=st.floats(-3, 3), may_be_none=st.booleans())  # fmt: skip
def test_it_is_what_trying_everything_finds(
    seed: int, width: int, kept: int, threshold: float, may_be_none: bool
) -> None:
    source = np.random.default_rng(seed)
    windows = [window(0, 6), window(4, 9)]
    logits = [source.normal(size=(2, len(w.row["input_ids"]))).astype(np.float32) for w in windows]
    best: dict[str, float] = {}
    for one, scores in zip(windows, logits, strict=True):
        for i, j in itertools.combinations_with_replacement(range(len(one.offsets)), 2):
            text = CONTEXT[one.offsets[i][0] : one.offsets[j][1]]
            if j - i < width and text.strip():
                start = one.offsets[i][0] + len(text) - len(text.lstrip())
                key = f"{start} {text.strip()}"
                best[key] = max(best.get(key, -math.inf), scores[0, 2 + i] + scores[1, 2 + j])
    ranked = sorted(best.items(), key=lambda item: -item[1])
    found = pick_answer(
        windows, logits, CONTEXT,
        options(max_answer_length=width, n_best_size=kept, has_unanswerable=may_be_none,
                null_score_diff_threshold=threshold),
    )  # fmt: skip
    stretches = [one for one in found.candidates if one.start < one.end]
    assert [f"{c.start} {CONTEXT[c.start : c.end]}" for c in stretches] == [
        key for key, _ in ranked[:kept]
    ]
    assert sum(one.probability for one in found.candidates) == pytest.approx(1)
    null = min(float(scores[0, 0] + scores[1, 0]) for scores in logits)
    if not may_be_none:
        assert found.null_odds is None
        assert f"{found.best.start} {found.text}" == ranked[0][0]
        return
    assert found.null_odds == pytest.approx(null - ranked[0][1], abs=1e-5)
    is_none = null - ranked[0][1] > threshold
    if abs(null - ranked[0][1] - threshold) > 1e-5:
        assert found.text == ("" if is_none else ranked[0][0].split(" ", 1)[1])


def test_a_context_without_words_has_no_answer() -> None:
    blank = Window({"input_ids": [0, 0, 0, 0]}, 2, ((0, 1),), (0, 1), 0)
    found = pick_answer([blank], [np.zeros((2, 4), np.float32)], " ", options())
    assert (found.text, found.null_odds) == ("", math.inf)


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-3, 3)),
                  min_size=1, max_size=8)
)  # fmt: skip
def test_the_best_threshold_is_the_best_of_all(rows) -> None:
    answered, silent, odds = zip(*rows, strict=True)

    def mean(threshold: float) -> float:
        return sum(a if o <= threshold else s for a, s, o in rows) / len(rows)

    best, threshold = best_threshold(answered, silent, odds)
    assert best == pytest.approx(max(map(mean, [-math.inf, *odds])))
    assert mean(threshold) == pytest.approx(best)
