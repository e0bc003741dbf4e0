"""Cutting rows: a partition that does not depend on order, with equal questions on one side."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Text
from peftkit.preprocessing.splits import (
    assign,
    content_key,
    plan_splits,
    position_of,
    smallest_share,
)
from peftkit.recipe.split_values import Slice

CUTS = {"test": Fraction(1, 5), "validation": Fraction(1, 10)}


def conversation(prompt: str, answer: str) -> Conversation:
    return Conversation(
        ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    )


@given(st.lists(st.text(), max_size=60), st.randoms())
def test_the_cut_is_a_partition_that_a_permutation_does_not_change(texts, random):
    def deal(rows: list[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"train": [], "test": [], "validation": []}
        for text in rows:
            found[assign(content_key({}, Text(text)), CUTS)].append(text)
        return found

    dealt = deal(texts)
    assert sorted(chain(*dealt.values())) == sorted(texts)
    shuffled = random.sample(texts, len(texts))
    assert {k: sorted(v) for k, v in deal(shuffled).items()} == {
        k: sorted(v) for k, v in dealt.items()
    }
    assert not set(dealt["train"]) & set(dealt["test"])


@given(st.text(), st.text(), st.text())
def test_rows_with_one_question_fall_on_one_side(prompt, first, second):
    keys = {content_key({}, conversation(prompt, answer)) for answer in (first, second)}
    assert len(keys) == 1


def test_shares_are_kept_in_the_large():
    sides = [assign(content_key({}, Text(f"row {n}")), CUTS) for n in range(20_000)]
    assert sides.count("test") / 20_000 == pytest.approx(0.2, abs=0.01)
    assert sides.count("validation") / 20_000 == pytest.approx(0.1, abs=0.01)


def test_a_larger_share_of_the_last_cut_moves_no_row_out_of_the_others():
    wider = {**CUTS, "validation": Fraction(3, 10)}
    keys = [content_key({}, Text(f"row {n}")) for n in range(500)]
    before = {key for key in keys if assign(key, CUTS) == "test"}
    assert before == {key for key in keys if assign(key, wider) == "test"}


def test_unusable_rows_are_dealt_by_their_whole_content():
    assert content_key({"a": None}, None) == content_key({"a": None}, None)
    assert content_key({"a": None}, None) != content_key({"a": 1}, None)


def test_the_plan_parts_native_names_from_percentages():
    plan = plan_splits({"train": "train", "test": "2.5%", "validation": "dev"})
    assert plan.native == {"train": (Slice("train"),), "validation": (Slice("dev"),)}
    assert plan.cuts == {"test": Fraction(1, 40)}


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ({"test": "test"}, "data.splits names no native split for train"),
        (
            {"train": "train", "test": "60%", "validation": "40%"},
            "data.splits cuts test 60%, validation 40% from train:"
            " each must be above 0 % and together below 100 %",
        ),
        (
            {"train": "train", "test": "0%"},
            "data.splits cuts test 0% from train: each must be above 0 % and together below 100 %",
        ),
    ],
)
def test_a_plan_that_leaves_nothing_is_refused(splits, problem):
    with pytest.raises(DataError) as caught:
        plan_splits(splits)
    assert caught.value.message == problem


def test_the_smallest_share_that_holds_a_row_holds_one():
    keys = [content_key({}, Text(f"row {n}")) for n in range(5)]
    share = smallest_share(keys, {"test": Fraction(1, 100)}, "test")
    assert share is not None
    percent = int(share.removesuffix("%"))
    assert any(position_of(key) < Fraction(percent, 100) for key in keys)
    assert not any(position_of(key) < Fraction(percent - 1, 100) for key in keys)
    assert smallest_share([], CUTS, "test") is None
