"""Let glibc keep the memory that a training step frees for the next one."""

from __future__ import annotations

import ctypes
import platform

# Names and numbers of glibc's malloc.h, mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_LARGE = 512 << 20
"""Bytes at the heap's top that stay when they are freed, and that are added when it grows."""


def keep_freed_memory(*, top_pad: int = 64 << 20) -> bool:
    """Serve large blocks from the heap and keep freed pages; return whether glibc did so.

    By default glibc maps every block above 32 MiB anew and gives the pages back when it is
    freed, so that each step's large temporaries (logits, attention scores) are paid for in page
    faults, one for every 4 KiB. What is kept counts as resident memory until the process ends.

    Source: mallopt(3). benchmarks/allocator.py measures the gain.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGE), (_M_TOP_PAD, top_pad))
    return all(mallopt(name, value) == 1 for name, value in settings)


def return_freed_memory(*, threshold: int = 1 << 16) -> bool:
    """Give every large block back when it is freed; return whether glibc did so.

    Resident memory then is what is alive, which is what a benchmark of memory asks; each block is
    paid for in page faults.

    Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_THRESHOLD, threshold), (_M_TRIM_THRESHOLD, threshold))
    return all(mallopt(name, value) == 1 for name, value in settings)
