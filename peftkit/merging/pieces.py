"""Merge pieces of tensors: so many rows of one, read, changed and written in tiles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.merging.changes import Matrix
from peftkit.merging.rounding import STORAGE
from peftkit.merging.tiles import Job, row_tiles
from peftkit.merging.weights_io import DTYPE_BYTES, read_into, reading

if TYPE_CHECKING:
    from peftkit.merging.layout import Written, WrittenShard
    from peftkit.merging.workers import Scratch

_PIECE_ELEMENTS = 1 << 26
"""Whole tensors but for the largest: what a change must read first is read once a piece."""


@dataclass(frozen=True)
class Piece:
    """Name some rows of a shard's tensor."""

    tensor: int
    """Its number in the shard."""
    start: int
    stop: int
    offset: int
    """Where the first row's result goes in the file."""


def pieces_of(number: int, tensor: Written, begin: int) -> Iterator[Piece]:
    """Cut a tensor that is merged into pieces.

    Args:
        number: the tensor's in its shard.
        begin: where its result begins in the file.
    """
    num_rows, columns = tensor.matrix.row_shape
    num_rows = max(num_rows, *(change.num_rows for change in tensor.changes), 0)
    step = max(1, _PIECE_ELEMENTS // max(1, columns))
    row_bytes = columns * DTYPE_BYTES[tensor.dtype]
    for start in range(0, num_rows, step):
        yield Piece(number, start, min(num_rows, start + step), begin + start * row_bytes)


class Merger:
    """Merge pieces of one shard into its file."""

    def __init__(self, shard: WrittenShard, target: int) -> None:
        """Take a shard and the descriptor of its file."""
        self.shard, self.target = shard, target

    def __call__(self, piece: Piece, scratch: Scratch) -> bool:
        """Merge a piece; return whether any number of it changed.

        Raises:
            ArtefactError: a result is not finite, or the source got shorter.
            OSError: the result cannot be written.
        """
        tensor = self.shard.tensors[piece.tensor]
        source = tensor.matrix
        columns = source.row_shape[1]
        functions = tuple(change.load(Matrix(source)) for change in tensor.changes)
        work = Job(tensor.name, source.dtype, tensor.dtype, columns, functions).work()
        changed, offset = tensor.dtype != source.dtype, piece.offset
        with reading(source.file) as descriptor:
            for first, last in row_tiles(piece.stop - piece.start, columns):
                start, num_rows = piece.start + first, last - first
                stored = scratch.take("stored", (num_rows, columns), STORAGE[source.dtype])
                place = source.offset + start * columns * stored.itemsize
                there = max(0, min(num_rows, source.num_rows - start))
                stored[there:] = 0
                if there:
                    part = memoryview(stored[:there].data).cast("B")
                    read_into(descriptor, part, place, source.file)
                merged = work(stored, start, scratch)
                changed = changed or there < num_rows or merged.tobytes() != stored.tobytes()
                offset += _write_all(self.target, memoryview(merged.data).cast("B"), offset)
        return changed


def _write_all(target: int, data: memoryview, offset: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], offset + done)
    return done
