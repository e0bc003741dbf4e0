"""`--method` names one merge; its options go through the gate, all problems at once."""

from __future__ import annotations

import pytest

from peftkit.errors import RecipeError, UsageError
from peftkit.merging.method import read_method


def test_a_name_and_its_options_make_a_merge() -> None:
    name, options, merge = read_method("{ties: {weights: [1, -0.5], density: 0.2}}")
    assert name == "ties"
    assert options == {"weights": [1, -0.5], "density": 0.2}
    assert list(merge.weights) == [1, -0.5]
    assert type(merge).__name__ == "Ties"


@pytest.mark.parametrize(
    ("method", "message", "hint"),
    [
        (None, "can be combined in many ways", "magnitude_prune_svd, svd, ties, ties_svd"),
        ("{dare: {weights: [1]}}", "there is no merge 'dare'", "did you mean dare_"),
        ("{soup: {weights: [1]}}", "there is no merge 'soup'", "the merges are cat, "),
        ("{svd: {weights: [1]}, cat: {weights: [1]}}", "no mapping of one name", "e.g. --method"),
        ("[svd]", "no mapping of one name", "e.g. --method"),
        ("3", "no mapping of one name", "e.g. --method"),
    ],
)
def test_what_names_no_merge_is_refused(method, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_method(method)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("method", "problems"),
    [
        ("svd", ["svd.weights: svd requires this key"]),
        ("{ties: {weights: [1, a], density: 2}}",
         ["ties.weights.1: expected float, got 'a'", "ties.density: must be above 0"]),
        ("{cat: {weights: [1], svd_rank: 4}}", ["cat.svd_rank: cat has no such key"]),
        ("{svd: {weights: [1], svd_rnk: 4}}", ["svd.svd_rnk: svd has no such key"]),
        ("{linear: {weights: [.nan]}}", ["linear.weights.0: expected float, got nan"]),
        ("{dare_ties: {weights: [1], density: 0.5, majority_sign_method: most}}",
         ["dare_ties.majority_sign_method: expected"]),
        ("{svd: {weights: [1]}", ["expected"]),
    ],
)  # fmt: skip
def test_every_wrong_option_is_named(method: str, problems: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        read_method(method)
    found = [f"{problem.key}: {problem.problem}" for problem in caught.value.problems]
    assert len(found) == len(problems)
    assert all(wanted in line for wanted, line in zip(problems, found, strict=True)), found
