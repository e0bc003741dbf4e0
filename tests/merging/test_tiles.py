"""A tile equals float64 rounded once, whatever the numbers; nothing infinite gets through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.errors import ArtefactError
from peftkit.merging import rounding
from peftkit.merging.changes import LowRank
from peftkit.merging.tiles import Job, row_tiles
from peftkit.merging.workers import Scratch

DTYPES = ("BF16", "F16", "F32", "F64")


def run(job: Job, base: np.ndarray, step: int) -> np.ndarray:
    """Merge rows in steps with one worker, whose buffers are used again."""
    work, scratch = job.work(), Scratch()
    parts = [
        work(base[start : start + step], start, scratch).copy()
        for start in range(0, len(base), step)
    ]
    return np.concatenate(parts)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    source=st.sampled_from(DTYPES),
    size=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 50), st.integers(1, 9)),
    scale=st.sampled_from([1.0, 7 / 3, -0.01, 1e-6, 40.0]),
    step=st.integers(1, 50),
)
def test_low_rank_tiles_equal_float64_rounded_once(
    *, seed, dtype, source, size, scale, step
) -> None:
    num, rows, columns, r = size
    random = np.random.default_rng(seed)
    weight = random.standard_normal((num * rows, columns)) * 0.02
    weight[:: max(1, rows // 3)] *= 1e-5  # small beside the change: the change's own error decides
    weight[0] = 0
    base = rounding.from_float64(weight, source)
    left = random.standard_normal((num, rows, r)) * random.choice([1e-6, 0.05, 1], (num, rows, 1))
    right = random.standard_normal((num, r, columns)) * 0.05
    left[:, 0] = 0
    # of the precision of adapters, whose products often lie exactly between two neighbours
    left, right = (
        rounding.to_float64(rounding.from_float64(f, "BF16"), "BF16") for f in (left, right)
    )
    change = LowRank(left, right, scale) if num > 1 else LowRank(left[0], right[0], scale)
    job = Job("w", source, dtype, columns, (change,))
    wide = rounding.to_float64(base, source)
    product = np.concatenate([left[i] @ right[i] for i in range(num)])
    wanted = rounding.from_float64(wide + scale * product, dtype)
    found = run(job, base, step)
    if dtype == "F32":
        unit = 2.0**-23 * max(1e-30, np.abs(wide + scale * product).max())
        assert np.abs(found.astype(float) - wanted).max() <= 4 * unit
    else:
        assert np.array_equal(found.view(np.uint8), wanted.view(np.uint8))


def test_four_million_elements_of_real_size_are_all_right() -> None:
    random = np.random.default_rng(0)
    for dtype in ("BF16", "F16"):
        base = rounding.from_float64(random.standard_normal((2048, 1024)) * 0.02, dtype)
        left, right = random.standard_normal((2048, 16)) * 0.05, random.standard_normal((16, 1024))
        change = LowRank(left, right * 0.05, 2.5)
        wanted = rounding.to_float64(base, dtype) + 2.5 * (left @ (right * 0.05))
        found = run(Job("w", dtype, dtype, 1024, (change,)), base, 256)
        wrong = found.view(np.uint16) != rounding.from_float64(wanted, dtype).view(np.uint16)
        assert not wrong.any()


def test_plain_float32_would_be_wrong_here() -> None:
    # the reason for the second look: without it some of the same elements come out wrong
    random = np.random.default_rng(0)
    base = (random.standard_normal((2048, 1024)) * 0.02).astype(np.float16)
    left, right = random.standard_normal((2048, 16)) * 0.05, random.standard_normal((16, 1024))
    exact = base.astype(float) + 2.5 * (left @ right * 0.05)
    plain = base.astype(np.float32) + (2.5 * left).astype(np.float32) @ (right * 0.05).astype(
        np.float32
    )
    assert (plain.astype(np.float16) != exact.astype(np.float16)).any()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_what_does_not_fit_is_refused_with_its_row(dtype) -> None:
    left, right = np.zeros((5, 1)), np.ones((1, 3))
    left[3] = 1e39
    base = rounding.from_float64(np.ones((5, 3)), dtype)
    with pytest.raises(ArtefactError, match="w becomes NaN or infinite in row 3"):
        run(Job("w", dtype, dtype, 3, (LowRank(left, right, 1.0),)), base, 2)


def test_a_broken_base_is_refused() -> None:
    base = np.array([[1.0], [np.nan]], np.float32)
    change = LowRank(np.zeros((2, 1)), np.ones((1, 1)), 1.0)
    with pytest.raises(ArtefactError, match="row 1"):
        run(Job("w", "F32", "F32", 1, (change,)), base, 2)


def test_a_change_of_dtype_alone_rounds_too() -> None:
    values = np.array([[1 + 2.0**-8], [1 + 3 * 2.0**-8]], np.float32)
    found = run(Job("w", "F32", "BF16", 1, ()), values, 1)
    assert rounding.to_float64(found, "BF16").tolist() == [[1.0], [1 + 2.0**-6]]


@given(st.integers(1, 10**7), st.integers(1, 10**6))
def test_row_tiles_cover_every_row_once(num_rows: int, columns: int) -> None:
    num_rows = min(num_rows, 3000 * max(1, (1 << 18) // columns))
    end = 0
    for start, stop in row_tiles(num_rows, columns):
        assert start == end < stop
        end = stop
    assert end == num_rows
