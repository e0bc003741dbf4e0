"""End a computation that somebody else wrote once it takes too much time or memory.

Both limits are the kernel's, so that whatever computes in Python is met: loops by a timer of the
process's own computing, which neither a stopped process nor a busy machine uses up, and memory by
the size that the process may grow to.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_MAPPED = Path("/proc/self/statm")
_this_thread = threading.local()


class OutOfTimeError(BaseException):
    """Raised where a computation takes longer than it may.

    No Exception: jinja2 passes over those while it folds constants, and computes them once more.
    """


@contextmanager
def bounded(seconds: float, num_bytes: int) -> Iterator[None]:
    """Let what is inside compute for so long, and take so much memory beside what is in use.

    Time is bounded in the main thread, which alone can be interrupted, and memory on Linux. Within
    bounds no others are set: those outside hold for all of it.

    Raises:
        OutOfTimeError: it takes longer.
        MemoryError: it asks for more.
    """
    if getattr(_this_thread, "is_bounded", False):
        yield
        return
    _this_thread.is_bounded = True
    try:
        with _within_memory(num_bytes), _within_time(seconds):
            yield
    finally:
        _this_thread.is_bounded = False


@contextmanager
def _within_time(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGVTALRM, _out_of_time)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds)  # again, where the first is caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, earlier)


def _out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTimeError


@contextmanager
def _within_memory(num_bytes: int) -> Iterator[None]:
    if not _MAPPED.exists():
        yield
        return
    most, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(_MAPPED.read_bytes().split(maxsplit=1)[0]) * resource.getpagesize()
    wanted = mapped + num_bytes
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
