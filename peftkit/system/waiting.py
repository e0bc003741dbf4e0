"""How threads of a computation wait for each other: where others compute too, asleep."""

from __future__ import annotations

import os

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
    """Tell whether half of the processors or more had work in the last minute."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none, and a container may hide it
        return False
    return load >= (os.cpu_count() or 1) / 2
