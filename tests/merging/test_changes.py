"""Reading stored rows, and cutting stacks into their matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging.changes import LowRank, Matrix, read_float64, stack_parts
from peftkit.merging.weights_io import open_shard


@pytest.fixture
def tensors(tmp_path):
    torch.manual_seed(0)
    made = {
        "b": torch.randn(5, 4).bfloat16(), "f": torch.randn(3, 2, 2), "i": torch.arange(6),
        "v": torch.randn(7).half(), "s": torch.tensor(2.5),
    }  # fmt: skip
    save_file(made, tmp_path / "x.safetensors")
    return made, {t.name: t for t in open_shard(tmp_path / "x.safetensors").tensors}


def test_every_shape_and_dtype_is_read_as_torch_reads_it(tensors) -> None:
    made, stored = tensors
    for name in ("b", "f", "v", "s"):
        assert np.array_equal(read_float64(stored[name]), made[name].double().numpy())
    assert np.array_equal(Matrix(stored["b"]).rows(2, 4), made["b"][2:4].double().numpy())
    assert [start for start, _ in Matrix(stored["b"]).tiles(8)] == [0, 2, 4]
    assert Matrix(stored["f"].as_stack()).shape == (6, 2)
    assert Matrix(stored["f"]).shape == (3, 4)


def test_a_file_that_got_shorter_is_an_error_not_a_crash(tensors) -> None:
    _, stored = tensors
    with stored["b"].file.open("r+b") as stream:
        stream.truncate(stored["v"].offset)
    with pytest.raises(ArtefactError, match="while it is read"):
        read_float64(stored["v"])


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 12))
def test_stack_parts_cover_the_rows_in_order(start: int, num: int, rows_each: int) -> None:
    rows = [
        index * rows_each + row
        for index, begin, end in stack_parts(start, num, rows_each)
        for row in range(begin, end)
    ]
    assert rows == list(range(start, start + num))


def test_low_rank_of_a_stack_is_each_matrix_product() -> None:
    random = np.random.default_rng(0)
    left, right = random.standard_normal((3, 4, 2)), random.standard_normal((3, 2, 5))
    base = random.standard_normal((12, 5))
    wanted = base + 0.5 * np.concatenate([left[i] @ right[i] for i in range(3)])
    found = LowRank(left, right, 0.5)(base[3:11], 3)
    assert np.allclose(found, wanted[3:11], rtol=1e-15)
