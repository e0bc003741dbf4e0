"""The runtime's bytes are said aloud, and larger where the workspaces are."""

from __future__ import annotations

import psutil

from peftkit.memory.runtime import runtime_of
from peftkit.planning import devices
from peftkit.plugins import Machine


def test_hopper_has_larger_workspaces() -> None:
    small, large = (runtime_of(devices.find(name).as_machine()) for name in ("a100-80", "h100"))
    assert large.num_bytes - small.num_bytes == 2 * ((32 << 20) - 8_519_680)
    assert "8,519,680" in small.formula
    assert small.block == 512


def test_a_cpu_is_measured() -> None:
    found = runtime_of(Machine("cpu", True, 1 << 34, 1 << 34, "x"))
    assert abs(found.num_bytes - psutil.Process().memory_info().rss) < 64 << 20
    assert found.block == 1
