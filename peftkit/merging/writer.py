"""Write the planned shards: copy what stays by the kernel, merge the rest in tiles, lose nothing.

Each shard is written beside its name and renamed when it is whole and on the disk. A journal says
how far a shard is safely written, so that an interrupted merge goes on there.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from peftkit.errors import ArtefactError, ResourceError
from peftkit.merging.blas import one_thread_a_product
from peftkit.merging.layout import WrittenShard
from peftkit.merging.pieces import Merger, pieces_of
from peftkit.merging.weights_io import reading
from peftkit.merging.workers import Workers, number_of_workers
from peftkit.system.units import gibibytes

PARTIAL = ".partial"
JOURNAL = ".merge-journal.jsonl"
_FICLONE = 0x40049409
"""ioctl of Linux that shares a file's blocks with another (btrfs, XFS)."""
_SYNC_BYTES = 1 << 26
"""Written bytes after which a shard's data is put on the disk while merging goes on, so that the
disk is at work from the start."""


@dataclass
class Journal:
    """Remember across interruptions how many tensors of a shard are safely on the disk."""

    file: Path
    done: dict[str, int] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Merged tensors of which at least one number came out different."""

    @classmethod
    def open(cls, folder: Path, identity: str) -> Journal:
        """Read the journal of an interrupted merge, or start one.

        Raises:
            ArtefactError: it belongs to a merge of something else.
        """
        file = folder / JOURNAL
        journal = cls(file)
        if not file.exists():
            journal._append({"identity": identity})
            return journal
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break  # the last line of a process that was killed
            if entry.get("identity", identity) != identity:
                raise ArtefactError(
                    f"{folder} holds an interrupted merge of other inputs",
                    hint=f"delete it, or give another folder with --out: rm -r {folder}",
                )
            if "shard" in entry:
                journal.done[entry["shard"]] = entry["tensors"]
                journal.changed.update(entry["changed"])
        return journal

    def record(self, shard: str, num_tensors: int, changed: list[str]) -> None:
        """Say that a shard's first tensors are on the disk, and which tensors changed so far."""
        self.done[shard] = num_tensors
        self._append({"shard": shard, "tensors": num_tensors, "changed": changed})

    def _append(self, entry: dict[str, object]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def check_room(folder: Path, shards: tuple[WrittenShard, ...], num_other_bytes: int) -> None:
    """Refuse to start where the result does not fit.

    Raises:
        ResourceError: says how much is needed and how much there is.
    """
    needed = num_other_bytes
    for shard in shards:
        partial = folder / (shard.name + PARTIAL)
        there = next((f for f in (folder / shard.name, partial) if f.exists()), None)
        needed += max(0, shard.num_bytes - (there.stat().st_blocks * 512 if there else 0))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{folder}: the merged model needs {gibibytes(needed)} more, the disk has"
            f" {gibibytes(free)} free",
            hint="free some space, or write to another disk with --out",
        )


def write_shard(folder: Path, shard: WrittenShard, journal: Journal) -> None:
    """Write one shard, or what an interrupted merge has left to write of it.

    Raises:
        ResourceError: the disk is full or cannot be written.
        ArtefactError: a result is not finite, or a source changed while it was read.
    """
    final, partial = folder / shard.name, folder / (shard.name + PARTIAL)
    if final.exists() and final.stat().st_size == shard.num_bytes:
        return
    try:
        if shard.copy_of is not None:
            _copy_file(shard.copy_of.path, partial, shard.num_bytes)
        else:
            _write_tensors(partial, shard, journal)
        if partial.stat().st_size != shard.num_bytes:
            raise ArtefactError(f"{partial} came out at {partial.stat().st_size} bytes")
        partial.rename(final)
        sync_folder(folder)
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        raise ResourceError(
            f"cannot write {partial}: {error.strerror}",
            hint="the same command goes on from here once there is room",
        ) from error


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    with reading(folder) as descriptor:
        os.fsync(descriptor)


def copy_range(source: int, target: int, begin: int, offset: int, num_bytes: int) -> None:
    """Copy bytes from file to file inside the kernel, or through a buffer where it cannot."""
    done = 0
    while done < num_bytes:
        try:
            # Linux copies at most 2 GiB at a time.
            got = os.copy_file_range(
                source, target, min(num_bytes - done, 1 << 26), begin + done, offset + done
            )
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            piece = os.pread(source, min(num_bytes - done, 1 << 22), begin + done)
            got = os.pwrite(target, piece, offset + done) if piece else 0
        if got == 0:
            raise ArtefactError("a source file got shorter while it was copied")
        done += got


def _parts(num_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut so many bytes into (begin, size) after which it may be time to sync."""
    for begin in range(0, num_bytes, _SYNC_BYTES):
        yield begin, min(_SYNC_BYTES, num_bytes - begin)


def _copy_file(source: Path, target: Path, num_bytes: int) -> None:
    """Copy a whole file, sharing its blocks where the filesystem can."""
    with reading(source) as origin, _writing(target) as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, origin)
        except OSError:
            copy_range(origin, copy, 0, 0, num_bytes)
        os.ftruncate(copy, num_bytes)
        os.fsync(copy)


def _write_tensors(partial: Path, shard: WrittenShard, journal: Journal) -> None:
    """Write header and tensors in order, from where the journal says.

    Workers merge ahead of that order; what stays as it is is copied here meanwhile.
    """
    first = journal.done.get(shard.name, 0) if partial.exists() else 0
    begins = itertools.accumulate((t.num_bytes for t in shard.tensors), initial=len(shard.header))
    left = list(zip(itertools.count(), shard.tensors, begins, strict=False))[first:]
    merged_bytes = sum(tensor.num_bytes for _, tensor, _ in left if not tensor.is_copied)
    with (
        one_thread_a_product(),
        _writing(partial) as target,
        Workers(Merger(shard, target), number_of_workers(merged_bytes)) as workers,
    ):
        os.pwrite(target, shard.header, 0)
        merging = {
            number: [workers.submit(piece) for piece in pieces_of(number, tensor, begin)]
            for number, tensor, begin in left
            if not tensor.is_copied
        }
        with _Flusher(target, shard.name, journal) as flusher:
            for number, tensor, begin in left:
                if tensor.is_copied:
                    with reading(tensor.source.file) as source:
                        for at, size in _parts(tensor.num_bytes):
                            copy_range(source, target, tensor.source.offset + at, begin + at, size)
                            flusher.written(number, size)
                else:
                    changed = [has_changed() for has_changed in merging.pop(number)]
                    if any(changed):
                        journal.changed.add(tensor.name)
                flusher.written(number + 1, 0 if tensor.is_copied else tensor.num_bytes)
        os.ftruncate(target, shard.num_bytes)
        os.fsync(target)
    # Before the shard gets its name: a shard that has it is never read again for what changed.
    journal.record(shard.name, len(shard.tensors), sorted(journal.changed))


class _Flusher:
    """Put written data on the disk beside the merging, and journal how far it is safe."""

    def __init__(self, target: int, shard: str, journal: Journal) -> None:
        self.target, self.shard, self.journal = target, shard, journal
        self.pool = ThreadPoolExecutor(1)
        self.flight: Future[None] | None = None
        self.num_unsynced = 0

    def __enter__(self) -> _Flusher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.pool.shutdown(wait=True)
        if self.flight and kind is None:
            self.flight.result()  # the kernel tells of a failed write once, and here it did

    def written(self, num_tensors: int, num_bytes: int) -> None:
        """Note that a tensor is written; syncs when enough has come together."""
        self.num_unsynced += num_bytes
        if self.num_unsynced < _SYNC_BYTES or (self.flight and not self.flight.done()):
            return
        if self.flight:
            self.flight.result()
        self.num_unsynced = 0
        # Sorted here: the merging goes on adding names while the other thread writes these.
        changed = sorted(self.journal.changed)
        self.flight = self.pool.submit(self._sync, num_tensors, changed)

    def _sync(self, num_tensors: int, changed: list[str]) -> None:
        os.fdatasync(self.target)
        self.journal.record(self.shard, num_tensors, changed)


@contextmanager
def _writing(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_journal(folder: Path) -> None:
    """Delete what only an unfinished merge needs."""
    with suppress(FileNotFoundError):
        (folder / JOURNAL).unlink()
