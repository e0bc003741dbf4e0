"""Signals: deferred to a safe place, served at once elsewhere, handlers put back."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from peftkit.errors import StoppedError
from peftkit.system.signals import SIGNALS, catching_signals


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_and_says_what_is_on_disk(number: signal.Signals) -> None:
    with catching_signals() as stop:
        stop.consequence = "the same command resumes at step 7"
        with pytest.raises(StoppedError) as caught:
            os.kill(os.getpid(), number)
    assert str(caught.value) == f"stopped by {number.name}: the same command resumes at step 7"
    assert caught.value.exit_code == 75


def test_a_deferred_signal_waits_for_the_end_of_the_stretch() -> None:
    reached = []
    with catching_signals() as stop, pytest.raises(StoppedError), stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.poll()
        reached.append("the end")
    assert reached == ["the end"]


def test_a_signal_that_a_library_swallowed_is_served_at_the_next_check() -> None:
    with catching_signals() as stop:
        with suppress(StoppedError):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError):
            stop.check()


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with catching_signals() as stop, pytest.raises(KeyboardInterrupt), stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_restored_and_an_ignored_hangup_stays_ignored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with catching_signals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in SIGNALS] == before

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catching_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.poll()
    finally:
        signal.signal(signal.SIGHUP, before[2])


def test_another_thread_runs_without_handlers() -> None:
    seen = []

    def work() -> None:
        with catching_signals() as stop:
            seen.append(stop.poll())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
