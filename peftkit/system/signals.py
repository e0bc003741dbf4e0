"""Stop a run on a signal without losing anything: at once, or at the end of a training step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from peftkit.errors import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Remember the first signal, and say what it leaves behind."""

    def __init__(self) -> None:
        self.consequence = "no step was trained; the same command starts over"
        """What is on disk now and what the same command does with it; kept true by the run."""
        self.signal: signal.Signals | None = None
        self._is_deferred = False

    @property
    def is_requested(self) -> bool:
        """Tell whether a signal has come."""
        return self.signal is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals inside; whoever polls `is_requested` must get to a safe place."""
        self.check()
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()

    def check(self) -> None:
        """Leave if a signal has come.

        Raises:
            StoppedError: says what is on disk and what the same command does.
        """
        if self.signal is not None:
            raise StoppedError(f"stopped by {self.signal.name}: {self.consequence}")

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: the first stops kindly, a second Ctrl-C at once."""
        if self.signal is not None:
            # A second SIGTERM or SIGHUP is the same wish again: launchers send both.
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        if not self._is_deferred:
            self.check()


@contextmanager
def catching_signals() -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP inside, and put the earlier handlers back after."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread only
        return
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    # `nohup` asks a process to outlive its terminal: an ignored SIGHUP stays ignored.
    ours = [number for number in SIGNALS if earlier[number] is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number in ours:
            signal.signal(number, earlier[number])
