"""Cutting a split by labels: shares alike, stable, and equal questions on one side."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.plugins import Text
from peftkit.preprocessing.cuts import make_cuts
from peftkit.preprocessing.splits import assign, content_key, to_shares

LABELS = st.lists(st.sampled_from(["a", "a", "a", "b", "b", "c"]), min_size=1, max_size=120)


def keyed(labels):
    return [(content_key({}, Text(f"row {n}")), label) for n, label in enumerate(labels)]


@given(LABELS, st.integers(1, 45), st.integers(0, 45), st.randoms())
def test_each_label_has_its_share_in_each_split_whatever_the_order(labels, test, validation, rng):
    cuts = {"test": Fraction(test, 100)}
    if validation:
        cuts["validation"] = Fraction(validation, 100)
    rows = keyed(labels)
    made = make_cuts(cuts, rows)
    sides = {key: made.split_of(key) for key, _ in rows}
    found = Counter((label, sides[key]) for key, label in rows)
    for label, count in Counter(labels).items():
        for name, share in cuts.items():
            assert abs(found[label, name] - share * count) < 1 + (count < 4)
        assert found[label, "train"] > 0
    shuffled = rng.sample(rows, len(rows))
    again = make_cuts(cuts, shuffled)
    assert {key: again.split_of(key) for key, _ in rows} == sides


def test_a_number_of_rows_is_dealt_to_the_labels_by_their_share():
    rows = keyed(["a"] * 60 + ["b"] * 30 + ["c"] * 10)
    cuts = make_cuts({"test": 20}, rows)
    found = Counter(label for key, label in rows if cuts.split_of(key) == "test")
    assert found == {"a": 12, "b": 6, "c": 2}


def test_rows_that_ask_the_same_stay_together_though_their_labels_differ():
    rng = random.Random(0)
    keys = [content_key({}, Text(f"row {n % 40}")) for n in range(120)]
    rows = [(key, rng.choice("ab")) for key in keys]
    cuts = make_cuts({"test": Fraction(1, 4)}, rows)
    assert len({(key, cuts.split_of(key)) for key in keys}) == 40
    share = sum(cuts.split_of(key) == "test" for key in keys) / 120
    assert share == pytest.approx(0.25, abs=0.06)


def test_more_rows_move_few():
    labels = [random.Random(n).choice("aab") for n in range(600)]
    rows = keyed(labels)
    few, many = make_cuts({"test": Fraction(1, 10)}, rows[:500]), make_cuts(
        {"test": Fraction(1, 10)}, rows
    )  # fmt: skip
    assert sum(few.split_of(key) != many.split_of(key) for key, _ in rows[:500]) <= 6


def test_rows_without_labels_are_cut_by_their_hash_alone():
    cut = {"test": Fraction(1, 5)}
    rows = keyed([None] * 200)
    made = make_cuts(cut, rows)
    shares = to_shares(cut, [key for key, _ in rows])
    assert all(made.split_of(key) == assign(key, shares) for key, _ in rows)


def test_a_label_of_one_row_is_trained():
    cuts = make_cuts({"test": Fraction(1, 2)}, keyed(["a"] * 9 + ["b"]))
    assert cuts.split_of(keyed(["a"] * 9 + ["b"])[-1][0]) == "train"
