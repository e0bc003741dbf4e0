"""Every monomial is recognised from two sizes, and a search finds the last that fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.memory.growth import (
    Virtual,
    explain_growth,
    largest_that_fits,
    make_size,
    monomials,
)

POINTS = ((2, 48), (2, 2048), (8, 1024), (1, 333), (1, 4096))


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("virtual", [Virtual(0, 0), Virtual(7, 7), Virtual(7, 0)])
def test_replays_every_monomial_at_a_third_size(point, virtual) -> None:
    rows = 1 if point[0] == 1 else 3
    probe = (rows, 677) if point[0] * point[1] > 4096 else (rows, 9187)
    sizes = make_size(*point, virtual=virtual), make_size(*probe, virtual=virtual)
    names = [n for n in monomials(sizes[0]) if "tile" not in n]
    values = [np.array([monomials(size)[n] * 24 for n in names]) for size in sizes]
    growth = explain_growth(values[0], values[1], sizes)
    assert growth.num_unexplained == 0
    third = make_size(rows, 1531, virtual=virtual)
    expected = [monomials(third)[n] * 24 for n in names]
    assert growth.bytes_at(third).tolist() == expected


def test_what_no_monomial_explains_is_counted() -> None:
    sizes = make_size(2, 48), make_size(5, 4099)
    growth = explain_growth(np.array([1000]), np.array([1234567]), sizes)
    assert growth.num_unexplained == 1


@given(limit=st.integers(0, 10**7), start=st.integers(1, 10**5))
def test_finds_the_last_number_that_fits(limit: int, start: int) -> None:
    assert largest_that_fits(lambda number: number <= limit, start) == limit
