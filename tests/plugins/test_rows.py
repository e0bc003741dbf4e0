"""Counting a row says what a cut leaves of it, as cutting it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.plugins.rows import IGNORED, Point, checked_rows, count_sequence


@given(st.lists(st.booleans(), max_size=12), st.integers(1, 12), st.booleans())
def test_what_is_counted_is_what_a_cut_leaves(trained: list[bool], limit: int, keeps: bool) -> None:
    labels = np.array([7 if one else IGNORED for one in trained], np.int32)
    found = count_sequence(labels, limit, keeps_end=keeps)
    left = labels[-limit:] if keeps else labels[:limit]
    assert found.length == len(labels)
    assert found.num_tokens == len(left)
    assert found.num_trained == (left != IGNORED).sum()
    assert found.is_cut == (len(left) < len(labels))
    places = np.flatnonzero(labels != IGNORED)
    if len(places):
        last = places[-1] if not keeps else places[-1] - (len(labels) - len(left))
        assert found.is_ended == (0 <= last < len(left))
        needed = count_sequence(labels, found.needed, keeps_end=keeps)
        assert needed.num_trained > 0
        assert (
            found.needed == 1
            or count_sequence(labels, found.needed - 1, keeps_end=keeps).num_trained == 0
        )


def test_a_forward_has_every_position() -> None:
    assert Point(3, 5, target_length=2).num_tokens == 15


def test_checked_rows_are_what_a_model_reads() -> None:
    windows = [{"input_ids": [1], "length": 9}, {"input_ids": [2]}]
    assert checked_rows([windows]) == [[{"input_ids": [1]}, {"input_ids": [2]}]]
    with pytest.raises(DataError, match="no luck"):
        checked_rows([windows, DataError("no luck")])
