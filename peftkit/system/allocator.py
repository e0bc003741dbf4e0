"""How a CPU's memory is taken and given back: in large pages, or as soon as it is freed."""

from __future__ import annotations

import ctypes
import os
import platform

# Names and numbers of glibc's malloc.h, mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""torch's own variable, which it reads once, when it first allocates."""


def take_large_pages(*, wanted: bool = True) -> None:
    """Tell torch to lay tensors of 2 MiB and more on the pages of that size that Linux has.

    A step frees what the next one takes again, and each page of 4 KiB of it is a fault. What
    somebody said in the environment stands. Processes begun from here do as this one does.

    Source: torch's c10/core/impl/alloc_cpu.cpp.
    """
    if wanted:
        os.environ.setdefault(LARGE_PAGES, "1")
    else:
        os.environ.pop(LARGE_PAGES, None)


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
