"""Low-rank arithmetic equals the same on whole matrices; the nearest of a rank is the SVD's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.merging.changes import LowRank
from peftkit.merging.factors import distance, nearest, norm, weighted_low_rank


def _low_rank(source, rows: int, columns: int, r: int, *, stack: int = 0) -> LowRank:
    lead = (stack,) if stack else ()
    left, right = (
        source.standard_normal((*lead, rows, r)),
        source.standard_normal((*lead, r, columns)),
    )
    return LowRank(left, right, float(source.uniform(-2, 2)))


def _whole(change: LowRank) -> np.ndarray:
    return change.scale * change.left @ change.right


SIDES = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(SIDES, SIDES),
    ranks=st.tuples(SIDES, SIDES),
    stack=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_sums_norms_and_distances_are_those_of_the_products(shape, ranks, stack, seed) -> None:
    (rows, columns), (r, s) = shape, ranks
    source = np.random.default_rng(seed)
    one = _low_rank(source, rows, columns, r, stack=stack)
    other = _low_rank(source, rows, columns, s, stack=stack)
    total = weighted_low_rank((one, other), (0.3, -2.0))
    np.testing.assert_allclose(_whole(total), 0.3 * _whole(one) - 2 * _whole(other), atol=1e-12)
    assert norm(one) == pytest.approx(np.linalg.norm(_whole(one)), rel=1e-12)
    wanted = np.linalg.norm(_whole(one) - _whole(other))
    assert distance(one, other) == pytest.approx(wanted, abs=1e-12)
    assert distance(one, one) == pytest.approx(0, abs=1e-13 * norm(one))


@settings(max_examples=60, deadline=None)
@given(rows=SIDES, columns=SIDES, r=SIDES, rank=SIDES, seed=st.integers(0, 99))
def test_the_nearest_has_the_singular_values_of_the_svd(rows, columns, r, rank, seed) -> None:
    change = _low_rank(np.random.default_rng(seed), rows, columns, r)
    whole = _whole(change)
    singular = np.linalg.svd(whole, compute_uv=False)
    best = np.linalg.norm(singular[rank:])
    for given_as in (change, whole):
        b, a = nearest(given_as, rank)
        assert b.shape[1] == a.shape[0] <= rank
        off = np.linalg.norm(whole - b @ a)
        assert off == pytest.approx(best, rel=1e-6, abs=1e-9 * singular[0])
    kept = min(rank, r, rows, columns)
    b, a = nearest(change, rank)
    # As in peft: A's rows are orthonormal, B's columns carry the singular values.
    np.testing.assert_allclose(a[:kept] @ a[:kept].T, np.eye(kept), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(b[:, :kept], axis=0), singular[:kept], atol=1e-9)


def test_nothing_has_nothing_as_its_nearest() -> None:
    b, a = nearest(np.zeros((4, 3)), 2)
    assert not (b @ a).any()
    b, a = nearest(np.zeros((3, 4)), 2)
    assert not (b @ a).any()
