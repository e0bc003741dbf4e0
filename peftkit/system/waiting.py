"""How threads of a computation wait for each other: where others compute too, asleep."""

from __future__ import annotations

import os
import time
from pathlib import Path

THIRD = 1 / 3
MOMENT_SECONDS = 0.2
"""Twenty of the kernel's ticks of each processor."""
_TIMES = Path("/proc/stat")
SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""By which of OpenMP's own variables somebody has said it already."""


def wait_asleep_if_busy() -> bool:
    """Tell OpenMP to let waiting threads sleep where the machine has other work; tell if it was.

    Threads that wait awake for one whose core is taken keep it from its turn: two threads beside
    other load trained at a fifth of the rate that they reach asleep. On an idle machine waking
    them costs some microseconds an operator, so there nothing is said. OpenMP asks once, when
    torch is first imported; processes begun from here do as this one does.
    """
    if any(name in os.environ for name in SAID) or not _is_busy():
        return False
    os.environ["OMP_WAIT_POLICY"] = "passive"
    return True


def _is_busy() -> bool:
    """Tell whether a third of the processors or more have work now.

    The load of the last minute holds what has ended since, a former run of one's own above all; so
    where it says that they are busy, they are looked at for a moment.
    """
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none, and a container may hide it
        return False
    return load >= (os.cpu_count() or 1) / 2 and _share_at_work() > THIRD


def _share_at_work() -> float:
    """Watch for a moment which share of the processors' time is used; all where Linux hides it."""
    try:
        before = _ticks()
        time.sleep(MOMENT_SECONDS)
        idle, total = (now - then for now, then in zip(_ticks(), before, strict=True))
    except (OSError, ValueError):
        return 1.0
    return 1 - idle / total if total else 1.0


def _ticks() -> tuple[int, int]:
    """Return how long all processors had nothing to do since the start, and how long in all."""
    with _TIMES.open(encoding="ascii") as lines:
        _, *ticks = lines.readline().split()
    _user, _nice, _system, idle, waiting, *_ = numbers = [int(one) for one in ticks[:8]]
    return idle + waiting, sum(numbers)
