"""Keep numpy's matrix products to one thread each while several workers multiply.

OpenBLAS starts as many threads as there are cores for every product, which then wait for each
other busily: with two workers on two cores a merge took four times the processor time. numpy has
no setting for it, so the library that it brings is asked itself. Delete this when numpy has one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NAMES = (
    "scipy_openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_",
    "openblas_{}_num_threads",
)


@contextmanager
def one_thread_a_product() -> Iterator[None]:
    """Let products take one thread each until the block ends; other libraries are left alone."""
    libraries = _openblas()
    before = [get() for get, _ in libraries]
    for _, put in libraries:
        put(1)
    try:
        yield
    finally:
        for (_, put), number in zip(libraries, before, strict=True):
            put(number)


def _openblas() -> list[tuple[Any, Any]]:
    """Return (get, set) of the number of threads of every OpenBLAS in this process."""
    import numpy  # noqa: F401 - loads the library

    maps = Path("/proc/self/maps")
    lines = maps.read_text(encoding="utf-8").splitlines() if maps.exists() else []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
    found = []
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        for name in _NAMES:
            if hasattr(library, name.format("set")):
                found.append((library[name.format("get")], library[name.format("set")]))
                break
    return found
