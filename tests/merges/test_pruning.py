"""Pruning keeps exactly the share it is told to, and chance is drawn as documented."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from peftkit.merges.pruning import keep_largest, keep_random

VALUES = arrays(
    np.float64, array_shapes(min_dims=1, max_dims=2, max_side=8),
    elements=st.integers(-3, 3).map(float),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(values=VALUES, density=st.floats(0.01, 1.0))
def test_the_largest_are_kept_and_earlier_ones_of_equals(values, density: float) -> None:
    kept = keep_largest(values, density)
    order = sorted(range(values.size), key=lambda i: (-abs(values.flat[i]), i))
    wanted = np.zeros(values.size)
    for place in order[: int(density * values.size)]:
        wanted[place] = values.flat[place]
    assert np.array_equal(kept.reshape(-1), wanted)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9])
def test_what_is_kept_is_what_peft_keeps(density: float) -> None:
    import torch
    from peft.utils.merge_utils import magnitude_based_pruning

    values = np.random.default_rng(1).standard_normal((37, 23))
    wanted = magnitude_based_pruning(torch.from_numpy(values), density).numpy()
    assert np.array_equal(keep_largest(values, density), wanted)


def test_chance_is_a_function_of_seed_name_and_place() -> None:
    part = np.random.default_rng(0).standard_normal((5, 7))
    kept = keep_random([part, part], 0.4, seed=9, name="a.weight")
    for index in (0, 1):
        source = np.random.default_rng([9, zlib.crc32(b"a.weight"), index])
        mask = source.random(part.shape) < 0.4
        assert np.array_equal(kept[index], np.where(mask, part / 0.4, 0))
    assert not np.array_equal(kept[0], kept[1])
    other = keep_random([part], 0.4, seed=9, name="b.weight")[0]
    assert not np.array_equal(kept[0], other)


def test_the_expectation_is_the_tensor_itself() -> None:
    part = np.random.default_rng(0).standard_normal((4, 4))
    mean = np.mean([keep_random([part], 0.3, seed=s, name="w")[0] for s in range(4000)], axis=0)
    # A kept number has the variance x^2 (1 - p) / p; five standard errors of 4,000 draws.
    assert np.all(np.abs(mean - part) <= 5 * np.abs(part) * np.sqrt(0.7 / 0.3 / 4000))


def test_nothing_is_drawn_where_all_is_kept() -> None:
    part = np.ones((2, 2))
    assert keep_random([part], 1.0, seed=0, name="w")[0] is part
    assert keep_largest(part, 1.0) is part
