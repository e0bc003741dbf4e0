"""Say how many bytes a base model's weights need at least, before any of them is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.system.checkpoint_files import read_header

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILE_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weight_bytes(files: Iterable[Path], *, dtype: str, bits: int | None = None) -> int:
    """Add up what the tensors of safetensors files need in memory, from the files' headers.

    Args:
        dtype: `model.dtype`; `auto` keeps each tensor's own.
        bits: of a quantized weight; None when the base is not quantized. Matrices are then
            counted at this size, embeddings too, so that the sum is a lower bound.
    """
    total = 0
    for file in files:
        for name, entry in read_header(file)[0].items():
            if name != "__metadata__":
                total += _tensor_bytes(entry, dtype=dtype, bits=bits)
    return total


def _tensor_bytes(entry: Mapping[str, Any], *, dtype: str, bits: int | None) -> int:
    shape: list[int] = entry["shape"]
    num = math.prod(shape)
    if entry["dtype"] not in _FILE_BYTES:
        begin, end = entry["data_offsets"]
        return int(end - begin)
    if bits is not None and len(shape) > 1:
        return num * bits // 8
    return num * _DTYPE_BYTES.get(dtype, _FILE_BYTES[entry["dtype"]])
