"""Measure the peak memory of a stretch of work, on a device or as resident memory on a CPU."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What resets VmHWM; see Linux, Documentation/filesystems/proc.rst, section 3.1 (clear_refs)."""


@dataclass(frozen=True)
class Peak:
    """Say how much memory was in use at most."""

    num_bytes: int
    """Bytes held by tensors on a device; resident bytes of this process on a CPU."""
    kind: str
    """`device` or `resident`."""
    num_reserved_bytes: int | None = None
    """Bytes that torch's allocator took from the device, its free blocks included."""

    @property
    def taken_bytes(self) -> int:
        """Return the bytes that others can no longer use, which a budget bounds."""
        return self.num_reserved_bytes or self.num_bytes


def kind_of_peak(device: str) -> str:
    """Say what is metered there: `device` or `resident`."""
    return "resident" if device in ("cpu", "mps") else "device"


class MemoryMeter:
    """Meter the peak since `start`; read it as often as you like."""

    def __init__(self, device: str) -> None:
        """Meter this device: `cpu`, or one that `torch.accelerator` knows."""
        self._on_device = kind_of_peak(device) == "device"
        self._is_exact = True
        self._highest = 0

    def start(self) -> None:
        """Forget any earlier peak."""
        if self._on_device:
            import torch

            torch.accelerator.reset_peak_memory_stats()
            return
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
        except OSError:
            # Some sandboxes forbid it; then the peak is the largest sample that `peak` took.
            self._is_exact = False
        self._highest = _resident("VmRSS")

    def peak(self) -> Peak:
        """Return the peak so far."""
        if self._on_device:
            import torch

            allocated = torch.accelerator.max_memory_allocated()
            return Peak(allocated, "device", torch.accelerator.max_memory_reserved())
        self._highest = max(self._highest, _resident("VmHWM" if self._is_exact else "VmRSS"))
        return Peak(self._highest, "resident")


def _resident(field: str) -> int:
    """Read a field of this process's status, in bytes; where there is none, the lifetime's peak."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
