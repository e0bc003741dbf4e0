"""Run pieces of work on as many processes as there are cores, each with buffers that it keeps.

Threads would do if numpy's calls were long: between two of them a thread needs Python's lock, and
two threads merged only 1.2 times as fast as one. Forked processes inherit what they need, so that
nothing but a piece's name and its result travels between them.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from peftkit.errors import ResourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_MAX_WORKERS = 8
_WORTH_A_FORK = 64 << 20
"""Bytes from which on starting processes, some 30 ms, is repaid."""
_PR_SET_PDEATHSIG = 1
"""prctl(2): send a signal to this process when its parent dies, whatever it dies of."""


class Scratch:
    """Keep a worker's buffers from tile to tile: new ones would be new pages every time."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the buffer of this name as an array, holding whatever was there."""
        import numpy as np

        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < num_bytes:
            buffer = self._buffers[name] = np.empty(num_bytes, np.uint8)
        return buffer[:num_bytes].view(dtype).reshape(shape)


def number_of_workers(num_bytes: int) -> int:
    """Return how many processes should work on so many bytes: one a core, or just this one.

    A process that runs Python threads cannot be forked safely.
    """
    if num_bytes < _WORTH_A_FORK or sys.platform != "linux" or threading.active_count() > 1:
        return 1
    return min(_MAX_WORKERS, len(os.sched_getaffinity(0)))


class Workers(Generic[Piece, Result]):
    """Run a function over pieces, in forked processes or, with one worker, when it is asked for."""

    def __init__(self, work: Callable[[Piece, Scratch], Result], number: int) -> None:
        self._in_this_process = partial(_call, work, Scratch())
        self._pool: ProcessPoolExecutor | None = None
        if number > 1:
            self._pool = ProcessPoolExecutor(
                number, get_context("fork"), initializer=_begin, initargs=(work,)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, piece: Piece) -> Callable[[], Result]:
        """Begin a piece; return what waits for its result, or raises its error."""
        if self._pool is None:
            return partial(self._in_this_process, piece)
        with warnings.catch_warnings():
            # Python's own threads were counted; those of a library that multiplies are idle.
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            future = self._pool.submit(_in_worker, piece)

        def result() -> Result:
            try:
                found: Result = future.result()
            except BrokenProcessPool:
                raise ResourceError(
                    "a worker process was killed, most likely because memory ran out",
                    hint="the same command goes on from here once there is room",
                ) from None
            return found

        return result


class _Worker:
    """Hold what a forked process was made for."""

    call: ClassVar[Callable[[Any], Any]]


def _begin(work: Callable[[Any, Scratch], Any]) -> None:
    """Make a forked process a worker: interrupts are its parent's, and so is its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _Worker.call = partial(_call, work, Scratch())


def _in_worker(piece: Any) -> Any:
    return _Worker.call(piece)


def _call(work: Callable[[Piece, Scratch], Result], scratch: Scratch, piece: Piece) -> Result:
    return work(piece, scratch)
