"""Measure what this CPU achieves, so that the roofline can be held against what really ran here."""

from __future__ import annotations

import time
from collections.abc import Callable

from peftkit.memory.devices import Device
from peftkit.memory.roofline import BANDWIDTH_SHARE, MATRIX_SHARE

_SIZE = 1024
_COPY_BYTES = 256 << 20
_REPEATS = 5


def measure_host(name: str, total_bytes: int) -> Device:
    """Describe the CPU as a device whose peaks are what it was just seen to achieve.

    Takes about a second. The achieved rates are divided by the shares that the roofline
    multiplies published peaks with, so that a prediction uses them as they are.
    """
    import torch

    left, right = torch.rand(_SIZE, _SIZE), torch.rand(_SIZE, _SIZE)
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = left.to(dtype), right.to(dtype)
        seconds = _fastest(lambda a=a, b=b: torch.mm(a, b))  # type: ignore[misc]
        rates[dtype] = 2 * _SIZE**3 / seconds / MATRIX_SHARE
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = _fastest(lambda: target.copy_(source))
    return Device(
        name=name,
        total_bytes=total_bytes,
        bfloat16_flops=rates[torch.bfloat16],
        float32_flops=rates[torch.float32],
        bandwidth=2 * _COPY_BYTES / seconds / BANDWIDTH_SHARE,
        source="measured on this machine just before",
    )


def _fastest(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
