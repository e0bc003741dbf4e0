"""Quantities as people read them."""

from __future__ import annotations

from peftkit.system.units import duration, exact_duration, gibibytes


def test_bytes_are_written_in_the_unit_that_is_shortest() -> None:
    sizes = (0, 300_000, 5 << 20, 700 << 20, 3 << 30, 5000 << 30)
    assert [gibibytes(n) for n in sizes] == [
        "0 KiB", "293 KiB", "5.0 MiB", "700 MiB", "3.00 GiB", "5,000.00 GiB",
    ]  # fmt: skip


def test_times_are_written_in_their_two_largest_units() -> None:
    assert [duration(s) for s in (4.4, 61, 3661)] == ["4 s", "1 min 1 s", "1 h 1 min"]
    assert [exact_duration(s) for s in (0.01234, 4.4, 61, 3661)] == [
        "0.0123 s", "4.4 s", "61 s", "1 h 1 min",
    ]  # fmt: skip
