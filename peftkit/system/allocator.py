"""Let glibc give memory back as soon as it is freed."""

from __future__ import annotations

import ctypes
import platform

# Names and numbers of glibc's malloc.h, mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


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
