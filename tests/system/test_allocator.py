"""What glibc is told to do with freed memory, seen in a process's own resident memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

SCRIPT = """
import ctypes
from pathlib import Path
from peftkit.system import allocator
assert allocator.{call}
def resident():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
size = 4 << 20
blocks = [libc.malloc(size) for _ in range(25)]
before = resident()
for block in blocks:
    ctypes.memset(block, 1, size)
full = resident()
# The last block stays, so that nothing can be trimmed from the heap's top.
for block in blocks[:-1]:
    libc.free(block)
print(full - before, full - resident())
"""


def grown_and_returned(call: str) -> tuple[int, int]:
    """Touch 100 MiB in blocks of 4 MiB and free nearly all; return bytes gained and given back."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(call=call)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    gained, returned = done.stdout.split()
    return int(gained), int(returned)


def test_returned_memory_does_not() -> None:
    gained, returned = grown_and_returned("return_freed_memory()")
    assert gained > 90 << 20
    assert returned > 90 << 20
