"""Scores merge as ranks do, or the tokenizer is refused."""

from __future__ import annotations

from peftkit.exporters.sentencepiece_scores import sentencepiece_scores

TOKENS = ("<s>", "ab", "abc", "bc", "a", "b", "c")


def test_earlier_merges_score_higher_and_letters_lowest() -> None:
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]
    scores, problem = sentencepiece_scores(TOKENS, range(1, 7), merges)
    assert problem == ""
    assert scores == (0.0, -0.0, -2.0, -1.0, -3.0, -3.0, -3.0)


def test_a_way_to_a_token_that_is_no_merge_is_named() -> None:
    _, problem = sentencepiece_scores(TOKENS, range(1, 7), [("a", "b"), ("b", "c"), ("ab", "c")])
    assert "'abc'" in problem
    assert "'a' and 'bc'" in problem


def test_merges_of_one_token_must_stand_together() -> None:
    merges = [("ab", "c"), ("b", "c"), ("a", "bc"), ("a", "b")]
    _, problem = sentencepiece_scores(TOKENS, range(1, 7), merges)
    assert "'abc'" in problem
