"""Hold a folder for one process, by a lock on the folder itself: there is no file to delete.

The kernel frees it when the process dies. A disk that locks no folders (some of a network) leaves
it to whoever holds something else beside.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HeldFolder:
    """Know a folder again after its path was given to another, or to none."""

    path: Path
    number: tuple[int, int]
    """Of its disk, and of the folder on it."""

    @property
    def is_there(self) -> bool:
        """Tell whether this very folder is still where it was."""
        try:
            return self.number == _number_of(self.path.stat())
        except OSError:
            return False


@contextmanager
def held_folder(folder: Path) -> Iterator[HeldFolder]:
    """Hold a folder that exists.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, fcntl.LOCK_EX)
        yield HeldFolder(folder, _number_of(os.fstat(descriptor)))
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Tell whether a process holds a folder now."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        _lock(descriptor, fcntl.LOCK_SH)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # no locks of folders on this disk


def _number_of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
