"""Read safetensors files that may come from anywhere: headers checked whole, bytes read in place.

Nothing is mapped: a file that shrinks while it is read gives an error, not a crash.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.system.checkpoint_files import read_header, read_json, torn, weight_files
from peftkit.system.weight_folders import check_inside

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
}  # fmt: skip
"""safetensors' names -> bytes an element; sub-byte types are refused by name."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""Dtypes that a merge can change; tensors of any other are copied."""


@dataclass(frozen=True)
class Tensor:
    """Say where one tensor's bytes lie."""

    name: str
    file: Path
    dtype: str
    """As safetensors writes it, e.g. `BF16`."""
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""

    @property
    def num_bytes(self) -> int:
        """Return its size in the file."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def row_shape(self) -> tuple[int, int]:
        """Return (rows, columns) of the matrix that merging works on.

        A row is what one index of the first axis holds: a convolution's output channel, one
        number of a vector.
        """
        return (self.shape[0], math.prod(self.shape[1:])) if self.shape else (1, 1)

    @property
    def num_rows(self) -> int:
        """Return how many rows `row_shape` has."""
        return self.row_shape[0]

    def as_stack(self) -> Tensor:
        """Return a stack of matrices (experts) as one long matrix, the same bytes."""
        *most, last = self.shape
        return replace(self, shape=(math.prod(most), last))


@dataclass(frozen=True)
class Shard:
    """Describe one safetensors file."""

    path: Path
    header: bytes = field(repr=False)
    """With its length in front, as it lies in the file."""
    metadata: Mapping[str, str]
    tensors: tuple[Tensor, ...]
    """In the order of their bytes."""
    num_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """Hold the headers of a folder's weights."""

    folder: Path
    shards: tuple[Shard, ...]
    tensors: Mapping[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Return the size of all files."""
        return sum(shard.num_bytes for shard in self.shards)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a model's weights.

    Raises:
        ArtefactError: the weights are pickled, torn, incomplete or outside the folder.
    """
    files = weight_files(folder)
    shards = tuple(open_shard(file, folder) for file in files)
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in tensors:
                raise ArtefactError(
                    f"{folder}: {tensor.name} is in both {tensors[tensor.name].file.name} and"
                    f" {shard.path.name}",
                    hint="download the model again",
                )
            tensors[tensor.name] = tensor
    _check_index(folder, tensors)
    return Checkpoint(folder, shards, tensors)


def open_shard(file: Path, folder: Path | None = None) -> Shard:
    """Read and check the header of one safetensors file.

    Args:
        folder: where the file must really lie; its own folder when None.

    Raises:
        ArtefactError: the file is a link out of its folder, no safetensors, torn, or its tensors
            overlap.
    """
    check_inside(file, folder or file.parent)
    header, stored = read_header(file)
    size = file.stat().st_size
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise torn(file, "its metadata is no object")
    tensors = [_tensor(file, name, entry, len(stored)) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    end = len(stored)
    for tensor in tensors:
        if tensor.offset != end:
            what = (
                "overlaps the one before it" if tensor.offset < end else "leaves a hole before it"
            )
            raise torn(file, f"{tensor.name} {what}")
        end += tensor.num_bytes
    if end != size:
        raise torn(file, f"its header promises {end} bytes, it has {size}")
    return Shard(file, stored, metadata, tuple(tensors), size)


@contextmanager
def reading(file: Path) -> Iterator[int]:
    """Open a file and give its descriptor."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_into(descriptor: int, buffer: memoryview, offset: int, file: Path) -> None:
    """Fill a buffer from a place in a file.

    Raises:
        ArtefactError: the file ends before the buffer is full.
    """
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], offset + done)
        if got == 0:
            raise torn(file, f"it ends at byte {offset + done}, while it is read")
        done += got


def _tensor(file: Path, name: str, entry: Any, data_start: int) -> Tensor:
    """Check one entry of a header."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise torn(file, f"{name} lacks a dtype, shape or place") from None
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise torn(file, f"{name} has an impossible shape or place: {shape}, {begin} to {end}")
    if dtype not in DTYPE_BYTES:
        raise ArtefactError(f"{file}: {name} has the dtype {dtype}, which peftkit does not know")
    tensor = Tensor(name, file, dtype, tuple(shape), data_start + begin)
    if tensor.num_bytes != end - begin:
        raise torn(
            file, f"{name} of {dtype}{shape} has {end - begin} bytes, not {tensor.num_bytes}"
        )
    return tensor


def _check_index(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Compare the index, where there is one, with what the shards hold."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return
    check_inside(index, folder)
    for name, file in read_json(index)["weight_map"].items():
        if name not in tensors or tensors[name].file.name != PurePosixPath(file).name:
            raise ArtefactError(
                f"{index} says that {file} holds {name}, but it does not",
                hint="download the model again",
            )
