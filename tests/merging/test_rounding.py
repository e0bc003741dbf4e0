"""Rounding is to the nearest, ties to even, once; widening is exact."""

from __future__ import annotations

import merge_fixture
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftkit.merging import rounding

NAMES = {"BF16": "bfloat16", "F16": "float16"}
EVERY = np.arange(1 << 16, dtype=np.uint16)
finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-60000, max_value=60000)


def wide(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Widen by torch."""
    kind = getattr(torch, NAMES[dtype])
    return torch.from_numpy(stored.view(np.int16).copy()).view(kind).double().numpy()


def stored(numbers: np.ndarray, dtype: str) -> np.ndarray:
    return numbers.view(rounding.STORAGE[dtype])


@pytest.mark.parametrize("dtype", NAMES)
def test_every_one_of_the_65536_numbers_widens_exactly(dtype: str) -> None:
    wanted = wide(EVERY, dtype)
    found = rounding.to_float64(stored(EVERY, dtype), dtype)
    out = np.empty(EVERY.shape, np.float32)
    rounding.to_float32(stored(EVERY, dtype), dtype, out)
    assert np.array_equal(found, wanted, equal_nan=True)
    with np.errstate(invalid="ignore"):  # signalling NaNs are among them
        assert np.array_equal(out.astype(np.float64), wanted, equal_nan=True)
    assert np.array_equal(np.signbit(out), np.signbit(wanted))


@pytest.mark.parametrize("dtype", NAMES)
def test_every_number_and_every_tie_rounds_as_distances_say(dtype: str) -> None:
    numbers = np.sort(wide(EVERY, dtype)[np.isfinite(wide(EVERY, dtype))])
    middles = (numbers[1:] + numbers[:-1]) / 2
    for values in (numbers, middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)):
        found = wide(rounding.from_float64(values, dtype).view(np.uint16), dtype)
        assert np.array_equal(found, merge_fixture.nearest(values, NAMES[dtype]))


@given(st.lists(finite, min_size=1, max_size=30), st.sampled_from(sorted(NAMES)))
def test_any_number_rounds_to_its_nearest(values: list[float], dtype: str) -> None:
    numbers = np.array(values)
    found = wide(rounding.from_float64(numbers, dtype).view(np.uint16), dtype)
    assert np.array_equal(found, merge_fixture.nearest(numbers, NAMES[dtype]))


def test_torch_rounds_float64_to_bfloat16_twice_and_peftkit_once() -> None:
    just_above_a_tie = np.array([1 + 2.0**-8 + 2.0**-40])
    assert float(torch.tensor(just_above_a_tie).bfloat16()[0]) == 1.0
    found = wide(rounding.from_float64(just_above_a_tie, "BF16"), "BF16")
    assert found[0] == 1 + 2.0**-7


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30))
def test_float32_rounds_as_torch_does(values: list[float]) -> None:
    numbers = np.array(values, np.float32)
    for dtype, name in NAMES.items():
        wanted = torch.from_numpy(numbers).to(getattr(torch, name)).view(torch.int16).numpy()
        found = rounding.round_float32(numbers, dtype).view(np.int16)
        assert np.array_equal(found, wanted)


def test_nan_stays_nan_and_what_is_too_large_becomes_infinite() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1e300])
    for dtype in NAMES:
        found = wide(rounding.from_float64(values, dtype).view(np.uint16), dtype)
        assert np.isnan(found[0])
        assert np.array_equal(found[1:], [np.inf, -np.inf, np.inf])
