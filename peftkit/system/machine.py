"""What this machine offers a run: its device, its memory, and whether bfloat16 is native."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from peftkit.plugins import Machine
from peftkit.system.imports import importing

_CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
"""Limit and usage of this process's control group: version 2, then version 1."""


def describe_machine() -> Machine:
    """Describe the device that a run on this machine uses: CUDA, XPU, MPS, else the CPU."""
    with importing():
        import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        supports = torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine("cuda", supports, total, free, torch.cuda.get_device_name())
    if torch.xpu.is_available():
        free, total = torch.xpu.mem_get_info()
        return Machine(
            "xpu", torch.xpu.is_bf16_supported(), total, free, torch.xpu.get_device_name()
        )
    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        free = max(0, total - torch.mps.driver_allocated_memory())
        return Machine("mps", _mps_has_bfloat16(torch), total, free, _cpu_name())
    total, free = host_memory()
    return Machine("cpu", _cpu_has_bfloat16(torch), total, free, _cpu_name())


def host_memory() -> tuple[int, int]:
    """Return (total, free) bytes of resident memory: the machine's or the control group's."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    for limit_file, usage_file in _CGROUP_FILES:
        limit, usage = _read_number(limit_file), _read_number(usage_file)
        # Version 1 writes "no limit" as a number near 2**63, hence the comparison with the RAM.
        if limit is not None and limit < total:
            total = limit
            free = min(free, max(0, limit - (usage or 0)))
    return total, free


def _read_number(file: Path) -> int | None:
    """Return a file's one number; None when there is no such file or it says `max`."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cpu_has_bfloat16(torch: Any) -> bool:
    """Tell whether oneDNN has bfloat16 instructions here; torch computes it slowly without."""
    supported: Any = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported is not None and torch.backends.mkldnn.is_available() and supported())


def _mps_has_bfloat16(torch: Any) -> bool:
    """Tell whether Metal takes bfloat16 tensors, which macOS 13 does not."""
    try:
        torch.zeros(1, dtype=torch.bfloat16, device="mps")
    except (TypeError, RuntimeError):
        return False
    return True


def _cpu_name() -> str:
    """Return the processor's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
