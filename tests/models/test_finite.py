"""Tensors with NaN or infinity are found, whatever else they are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import ArtefactError
from peftkit.models.finite import check_base_finite, find_not_finite

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@given(
    st.lists(st.floats(width=16) | st.just(6e4), min_size=1, max_size=40), st.sampled_from(DTYPES)
)
def test_exactly_those_that_are_no_numbers_are_named(
    values: list[float], dtype: torch.dtype
) -> None:
    found = find_not_finite([("a", torch.tensor(values, dtype=dtype))])
    assert found == ([] if all(map(math.isfinite, values)) else ["a"])


def test_a_sum_that_overflows_is_looked_at_again() -> None:
    assert find_not_finite([("a", torch.full((9,), 3e38))]) == []
    assert find_not_finite([("a", torch.ones(3, dtype=torch.int64))]) == []
    assert find_not_finite([("a", torch.ones(3, device="meta"))]) == []


def test_a_model_is_refused_by_the_names_of_its_tensors() -> None:
    model = torch.nn.Linear(2, 2)
    check_base_finite(model, "here")
    torch.nn.init.constant_(model.bias, math.inf)
    with pytest.raises(ArtefactError, match=r"here: 1 of 2 tensors \(bias\) hold NaN or infinity"):
        check_base_finite(model, "here")
