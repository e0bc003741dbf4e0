"""Measure what this CPU achieves, so that the roofline can be held against what really ran here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from peftkit.planning.devices import Device

if TYPE_CHECKING:
    import torch

_SIZES = (256, 512, 1024)
"""Edges of the multiplied matrices; larger ones achieve more."""
_LONG_ENOUGH = 0.05
"""Seconds of a product that a larger one would tell no more than; bfloat16 without instructions
of its own is a hundred times slower than float32."""
_COPY_BYTES = 256 << 20
_REPEATS = 5


def measure_host(name: str, total_bytes: int) -> Device:
    """Describe the CPU as a device whose peaks are what it was just seen to achieve.

    Takes about two seconds.
    """
    import torch

    rates = {dtype: _matrix_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = _fastest(lambda: target.copy_(source))
    return Device(
        name=name,
        total_bytes=total_bytes,
        bfloat16_flops=rates[torch.bfloat16],
        float32_flops=rates[torch.float32],
        bandwidth=2 * _COPY_BYTES / seconds,
        source="measured on this machine just before",
        is_measured=True,
    )


def _matrix_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s that products in a dtype achieve."""
    import torch

    rate = 0.0
    for size in _SIZES:
        left, right = torch.rand(size, size).to(dtype), torch.rand(size, size).to(dtype)
        seconds = _fastest(lambda a=left, b=right: torch.mm(a, b))  # type: ignore[misc]
        rate = max(rate, 2 * size**3 / seconds)
        if seconds > _LONG_ENOUGH:
            break
    return rate


def _fastest(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
