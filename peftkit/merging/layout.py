"""What will be written: every shard's tensors, their places, and the header known in advance."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peftkit.merging.changes import Change
from peftkit.merging.weights_io import DTYPE_BYTES, Checkpoint, Shard, Tensor


@dataclass(frozen=True)
class Written:
    """Say what one tensor of the result is made of."""

    name: str
    source: Tensor
    """Where its bytes, or the numbers that change, come from: the base, or the adapter."""
    dtype: str
    changes: tuple[Change, ...] = ()
    shape: tuple[int, ...] | None = None
    """As written; the source's when None."""

    @property
    def is_copied(self) -> bool:
        """Tell whether the source's bytes go into the result as they are."""
        return not self.changes and self.dtype == self.source.dtype

    @property
    def matrix(self) -> Tensor:
        """Return the source in the shape that the changes work on."""
        is_stack = any(change.is_stack for change in self.changes)
        return self.source.as_stack() if is_stack else self.source

    @property
    def final_shape(self) -> tuple[int, ...]:
        """Return the shape in the result."""
        return self.source.shape if self.shape is None else self.shape

    @property
    def num_bytes(self) -> int:
        """Return its size in the result."""
        return math.prod(self.final_shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class WrittenShard:
    """Describe one file of the result."""

    name: str
    header: bytes = field(repr=False)
    tensors: tuple[Written, ...]
    copy_of: Shard | None = None
    """The base's file when nothing in it changes."""

    @property
    def num_bytes(self) -> int:
        """Return the file's size."""
        return len(self.header) + sum(tensor.num_bytes for tensor in self.tensors)


def lay_out(
    base: Checkpoint,
    written: Mapping[str, Written],
    added: Iterable[tuple[str, Written]] = (),
) -> tuple[WrittenShard, ...]:
    """Keep the base's files and the order in them; add what it does not have, drop what is gone.

    Args:
        written: base tensor -> what it becomes; a base tensor that is absent is dropped.
        added: (base tensor whose file it goes into, new tensor).
    """
    guests: dict[str, list[Written]] = {}
    for host, tensor in added:
        guests.setdefault(base.tensors[host].file.name, []).append(tensor)
    shards = []
    for shard in base.shards:
        kept = [written[tensor.name] for tensor in shard.tensors if tensor.name in written]
        kept += guests.get(shard.path.name, [])
        is_same = len(kept) == len(shard.tensors) and all(
            tensor.is_copied and tensor.source.file == shard.path for tensor in kept
        )
        shards.append(
            WrittenShard(
                shard.path.name,
                shard.header if is_same else _header(shard, kept),
                tuple(kept),
                shard if is_same else None,
            )
        )
    return tuple(shard for shard in shards if shard.tensors)


def index_of(shards: tuple[WrittenShard, ...]) -> dict[str, Any] | None:
    """Return the content of `model.safetensors.index.json`; None for a single file."""
    if len(shards) == 1 and shards[0].name == "model.safetensors":
        return None
    tensors = [tensor for shard in shards for tensor in shard.tensors]
    return {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.final_shape) for tensor in tensors),
            "total_size": sum(tensor.num_bytes for tensor in tensors),
        },
        "weight_map": dict(
            sorted((tensor.name, shard.name) for shard in shards for tensor in shard.tensors)
        ),
    }


def _header(shard: Shard, tensors: list[Written]) -> bytes:
    """Write a header: the base's own where names, dtypes and shapes stay."""
    unchanged = len(tensors) == len(shard.tensors) and all(
        (new.name, new.dtype, new.final_shape) == (old.name, old.dtype, old.shape)
        for new, old in zip(tensors, shard.tensors, strict=True)
    )
    if unchanged:
        return shard.header
    metadata = {str(key): str(value) for key, value in shard.metadata.items()}
    content: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for tensor in tensors:
        content[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.final_shape),
            "data_offsets": [offset, offset + tensor.num_bytes],
        }
        offset += tensor.num_bytes
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # safetensors aligns the data so
    return struct.pack("<Q", len(text)) + text
