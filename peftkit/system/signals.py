"""Stop a run on a signal without losing anything: at once, or at the end of a training step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from peftkit.errors import StoppedError
from peftkit.system.process import ALONE, Process

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Remember the first signal to any of a run's processes, and say what it leaves behind."""

    def __init__(self, process: Process = ALONE) -> None:
        self.consequence = "no step was trained; the same command starts over"
        """What is on disk now and what the same command does with it; kept true by the run."""
        self.signal: signal.Signals | None = None
        """The first that came to this process."""
        self._process = process
        self._is_deferred = False

    def poll(self) -> bool:
        """Tell whether a signal has come to any process, which all of them ask together."""
        return self._first() is not None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals inside; whoever polls them must get to a safe place."""
        self._is_deferred = True
        try:
            self.check()
            yield
        finally:
            self._is_deferred = False
        self.check()

    def check(self) -> None:
        """Leave if a signal has come to any process, all of them together.

        Raises:
            StoppedError: says what is on disk and what the same command does.
        """
        first = self._first()
        if first is not None:
            raise self._stopped(first)

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: the first stops kindly, a second Ctrl-C at once."""
        if self.signal is not None:
            # A second SIGTERM or SIGHUP is the same wish again: launchers send both.
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        if not self._is_deferred:
            raise self._stopped(self.signal)  # by itself: a launcher tells every process

    def _first(self) -> signal.Signals | None:
        # Another's signal is not noted as this one's own, which may be still to come: a Ctrl-C goes
        # to all of them, and would count as the second.
        number = self._process.most(self.signal or 0)
        return signal.Signals(number) if number else None

    def _stopped(self, by: signal.Signals) -> StoppedError:
        return StoppedError(f"stopped by {by.name}: {self.consequence}")


@contextmanager
def catching_signals(process: Process = ALONE) -> Iterator[StopRequest]:
    """Catch SIGINT, SIGTERM and SIGHUP inside, and put the earlier handlers back after."""
    request = StopRequest(process)
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
