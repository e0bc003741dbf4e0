"""Built-in rewards score each answer by itself."""

from __future__ import annotations

import pytest

from peftkit.methods.rewards import ExactMatch, SimilarLength


def test_exact_match_ignores_outer_whitespace_alone() -> None:
    answers, references = [" yes\n", "Yes", ""], ["yes", "yes", "yes"]
    assert ExactMatch().score(["?"] * 3, answers, references) == [1.0, 0.0, 0.0]


def test_similar_length_halves_with_each_factor_of_two() -> None:
    answers = ["a b", "a", "a b c d", ""]
    found = SimilarLength().score(["?"] * 4, answers, ["x y"] * 4)
    assert found == pytest.approx([1.0, 0.5, 0.5, 0.5])
