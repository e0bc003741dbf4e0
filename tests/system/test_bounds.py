"""What takes too long, or too much memory, ends; what does not is as it was."""

from __future__ import annotations

import resource
import signal

import pytest

from peftkit.system.bounds import OutOfTimeError, bounded


def test_a_loop_without_an_end_ends() -> None:
    with pytest.raises(OutOfTimeError), bounded(0.1, 64 << 20):
        while True:
            pass


def test_a_single_step_that_takes_long_ends_too() -> None:
    with pytest.raises(OutOfTimeError), bounded(0.1, 64 << 20):
        9**9**9


def test_more_memory_than_it_may_take_is_not_given() -> None:
    with pytest.raises(MemoryError), bounded(5, 64 << 20):
        bytes(200 << 20)


def test_what_ends_by_itself_leaves_nothing_set() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    with bounded(5, 64 << 20):
        assert sum(range(10)) == 45
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_bounds_outside_hold_for_all_that_is_inside() -> None:
    with pytest.raises(OutOfTimeError), bounded(0.1, 64 << 20):
        while True:
            with bounded(5, 64 << 20):
                sum(range(100))


def test_after_bounds_others_are_set_again() -> None:
    with pytest.raises(ZeroDivisionError), bounded(5, 64 << 20), bounded(5, 64 << 20):
        1 / 0  # noqa: B018 - for what it raises
    with pytest.raises(MemoryError), bounded(5, 64 << 20):
        bytes(200 << 20)
