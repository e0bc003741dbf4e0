"""The meter sees what is allocated after it starts, and only that."""

from __future__ import annotations

import mmap

import pytest

from peftkit.system.meter import MemoryMeter, Peak, kind_of_peak


def _fill(num_bytes: int) -> None:
    # Pages of its own: the heap may still hold what an earlier test in this process freed.
    with mmap.mmap(-1, num_bytes) as pages:
        for offset in range(0, num_bytes, mmap.PAGESIZE):
            pages[offset] = 1


def test_the_peak_counts_memory_that_is_given_back() -> None:
    _fill(400 << 20)
    meter = MemoryMeter("cpu")
    meter.start()
    before = meter.peak().num_bytes
    _fill(100 << 20)
    grown = meter.peak().num_bytes - before
    assert grown == pytest.approx(100 << 20, rel=0.1)
    assert meter.peak().kind == "resident"


def test_a_budget_bounds_what_the_allocator_took() -> None:
    assert Peak(5, "resident").taken_bytes == 5
    assert Peak(5, "device", 8).taken_bytes == 8
    assert [kind_of_peak(d) for d in ("cpu", "mps", "cuda")] == ["resident", "resident", "device"]
