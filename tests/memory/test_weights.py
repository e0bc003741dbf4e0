"""Weights are counted from headers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.memory.weights import weight_bytes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensors = {
        "matrix": torch.zeros(10, 20, dtype=torch.bfloat16),
        "norm": torch.zeros(20, dtype=torch.bfloat16),
        "counter": torch.zeros(1, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("dtype", "bits", "num_bytes"),
    [("auto", None, 448), ("float32", None, 888), ("bfloat16", 4, 148), ("bfloat16", 8, 248)],
)
def test_bytes_follow_the_dtype_they_are_loaded_in(
    file: Path, dtype: str, bits: int | None, num_bytes: int
) -> None:
    assert weight_bytes([file], dtype=dtype, bits=bits) == num_bytes


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"PK\3\4" * 9])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"x\.safetensors is torn or no safetensors file"):
        weight_bytes([tmp_path / "x.safetensors"], dtype="auto")
