"""Folders for what is being written: gone afterwards, also those of a process that was killed."""

from __future__ import annotations

import fcntl
import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ALIVE = ".alive"
"""A file that its maker holds locked as long as it lives; the kernel frees it."""


@contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside an output, on the same disk, and take it away afterwards.

    What a killed process left for the same output goes first: it may be as large as a model.
    """
    parent = out.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}."
    _sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with (folder / _ALIVE).open("w") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path, prefix: str) -> None:
    """Delete the scratch folders that nobody holds."""
    for alive in parent.glob(f"{glob.escape(prefix)}*/{_ALIVE}"):
        with suppress(OSError), alive.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: it is alive
            shutil.rmtree(alive.parent, ignore_errors=True)
