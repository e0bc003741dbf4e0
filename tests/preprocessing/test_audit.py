"""What is said of a split: reasons, and the lengths that keep a share of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peftkit.preprocessing.audit import describe_dropped, length_keeping, percentiles


def test_reasons_are_ranked_and_cut():
    dropped = {f"reason {n}": n for n in range(1, 8)}
    assert describe_dropped(dropped, limit=2) == "7 reason 7; 6 reason 6; 15 for other reasons"


@given(st.lists(st.integers(1, 500), min_size=1, max_size=80), st.floats(0, 1))
def test_the_length_that_keeps_a_share_keeps_it_and_is_the_smallest(lengths, share):
    length = length_keeping(np.asarray(lengths), share)
    kept = sum(other <= length for other in lengths)
    assert kept >= share * len(lengths) - 1e-6
    smaller = sum(other < length for other in lengths)
    assert smaller < share * len(lengths) + 1e-6 or length == min(lengths)


def test_percentiles_of_nothing_are_nothing():
    assert percentiles(np.asarray([], np.int64)) == {}
    assert percentiles(np.asarray([5])) == {"p50": 5, "p90": 5, "p99": 5, "max": 5}
