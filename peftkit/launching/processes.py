"""Start a run's processes by accelerate, hand signals on to them, and tell how they ended.

accelerate starts them through torch's elastic agent, which ends with 1 whatever they end with, and
at a signal kills them after 30 seconds, in the midst of a long step. So the agent works in a thread
here, where it handles no signals; this process sends each of them on, once, and waits as long as
the run takes to reach a safe place.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from peftkit.system.signals import SIGNALS

_POLL_SECONDS = 0.1
_SAME_SECONDS = 1
"""torch notes the second of a failure: what failed within so many may have failed at once."""


@dataclass(frozen=True)
class Failure:
    """Say how one of this machine's processes failed."""

    rank: int
    pid: int
    exit_code: int
    """Negative: the signal that killed it."""
    message: str
    """What it left for its launcher; empty if nothing."""
    seconds: int
    """When, since the epoch."""

    @property
    def signal_name(self) -> str | None:
        """Name the signal that killed it; None where it left by itself."""
        if self.exit_code >= 0:
            return None
        with suppress(ValueError):
            return signal.Signals(-self.exit_code).name
        return f"signal {-self.exit_code}"


@dataclass(frozen=True)
class Ending:
    """Say how the processes of this machine ended."""

    failures: tuple[Failure, ...] = ()
    error: BaseException | None = None
    """Why accelerate could not start them."""
    forwarded: tuple[int, ...] = ()
    """Signals that were handed on to them."""

    @property
    def cause(self) -> Failure | None:
        """Return the failure that made the others fail: of the first second, what says most."""
        if not self.failures:
            return None
        first = min(failure.seconds for failure in self.failures)
        early = [f for f in self.failures if f.seconds <= first + _SAME_SECONDS]
        return min(early, key=self._weight)

    def _weight(self, failure: Failure) -> tuple[int, int]:
        """Rank by evidence: killed from outside, a documented code, any code, killed by us."""
        if self.is_ours(failure):
            evidence = 3
        elif failure.exit_code == 1:
            evidence = 2
        elif failure.exit_code > 1:
            evidence = 1
        else:
            evidence = 0
        return evidence, failure.seconds

    def is_ours(self, failure: Failure) -> bool:
        """Tell whether a process left because of a signal of ours, or of the agent's."""
        by = failure.exit_code - 128 if failure.exit_code > 128 else -failure.exit_code
        return by in (*self.forwarded, signal.SIGTERM)


def run_processes(arguments: Sequence[str]) -> Ending:
    """Run `accelerate launch ARGUMENTS` to its end.

    Args:
        arguments: of accelerate's own, then what it starts with its words.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser

    args = launch_command_parser().parse_args(list(arguments))
    caught: list[BaseException] = []

    def launch() -> None:
        try:
            launch_command(args)
        except BaseException as error:
            caught.append(error)

    with _agent_is_quiet(), _Forwarding() as forwarding:
        thread = threading.Thread(target=launch, name="accelerate launch", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            forwarding.hand_on()
    return _ending(caught[0] if caught else None, tuple(forwarding.received))


@contextmanager
def _agent_is_quiet() -> Iterator[None]:
    """Keep the agent from saying, at length, what is said after it in a line."""
    earlier = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(earlier)


@dataclass
class _Forwarding:
    """Remember signals to this process, and send each of them to each of its workers once.

    A worker leads a session of its own, as torch starts it: a terminal's Ctrl-C comes to this
    process alone.
    """

    received: list[int] = field(default_factory=list)
    _told: dict[int, int] = field(default_factory=dict)
    """How many of them a worker has been sent."""
    _earlier: dict[int, Any] = field(default_factory=dict)

    def __enter__(self) -> _Forwarding:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`
                    self._earlier[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)

    def hand_on(self) -> None:
        """Send what has come to the workers that do not know of it, also to those just started."""
        if not self.received:
            return
        for worker in _workers():
            for number in self.received[self._told.get(worker, 0) :]:
                with suppress(ProcessLookupError):
                    os.kill(worker, number)
            self._told[worker] = len(self.received)


def _workers() -> list[int]:
    """Return the ids of the processes that the agent has started."""
    import psutil

    found = []
    for child in psutil.Process().children():
        with suppress(ProcessLookupError):
            if os.getsid(child.pid) == child.pid:
                found.append(child.pid)
    return found


def _ending(error: BaseException | None, forwarded: tuple[int, ...]) -> Ending:
    """Read off how the launcher ended how the processes did."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if isinstance(error, ChildFailedError):
        failures = tuple(_failure(rank, one) for rank, one in error.failures.items())
        return Ending(failures, forwarded=forwarded)
    if isinstance(error, subprocess.CalledProcessError):  # DeepSpeed's own launcher of machines
        return Ending((Failure(0, 0, error.returncode, "", 0),), forwarded=forwarded)
    return Ending(error=error, forwarded=forwarded)


def _failure(rank: int, one: Any) -> Failure:
    """Read torch's record of a failure; for a process that left no message it has words of its own.

    What a process left goes before how it ended, which a late signal may have changed.
    """
    left = one.message if isinstance(one.message, dict) else {}
    exit_code = int(left.get("errorCode", one.exitcode))
    return Failure(rank, one.pid, exit_code, str(left.get("message", "")), int(one.timestamp))
