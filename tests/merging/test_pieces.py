"""Pieces cover a tensor's rows once and write what the whole tensor would be."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from peftkit.errors import ArtefactError
from peftkit.merging import pieces
from peftkit.merging.changes import Change, LowRank
from peftkit.merging.layout import Written, lay_out
from peftkit.merging.pieces import Merger, Piece, pieces_of
from peftkit.merging.weights_io import Tensor, open_checkpoint
from peftkit.merging.workers import Scratch


@given(
    num_rows=st.integers(1, 5000), columns=st.integers(1, 3000), most=st.integers(1, 1 << 20),
    begin=st.integers(0, 100), dtype=st.sampled_from(["BF16", "F32"]),
)  # fmt: skip
def test_pieces_cover_every_row_and_byte_once(*, num_rows, columns, most, begin, dtype) -> None:
    tensor = Written("w", Tensor("w", None, "BF16", (num_rows, columns), 0), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PIECE_ELEMENTS", max(most, num_rows * columns // 50))
        found = list(pieces_of(7, tensor, begin))
    row_bytes = columns * {"BF16": 2, "F32": 4}[dtype]
    row = 0
    for piece in found:
        assert piece.tensor == 7 and piece.start == row < piece.stop
        assert piece.offset == begin + row * row_bytes
        row = piece.stop
    assert row == num_rows and begin + row * row_bytes == begin + tensor.num_bytes


@pytest.fixture
def shard(tmp_path):
    torch.manual_seed(0)
    save_file({"w": torch.randn(300, 20)}, tmp_path / "model.safetensors")
    base = open_checkpoint(tmp_path)
    left, right = torch.randn(300, 3).double().numpy(), torch.randn(3, 20).double().numpy()
    left[:100] = 0
    change = Change(("x",), lambda _: LowRank(left, right, 0.5))
    (planned,) = lay_out(base, {"w": Written("w", base.tensors["w"], "F32", (change,))})
    return planned, tmp_path / "model.safetensors", 0.5 * left @ right


def test_pieces_in_any_order_write_the_whole_tensor(shard, tmp_path) -> None:
    planned, source, delta = shard
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    merge, scratch, begin = Merger(planned, descriptor), Scratch(), len(planned.header)
    some = [Piece(0, a, b, begin + a * 80) for a, b in ((200, 300), (0, 100), (100, 200))]
    changed = [merge(piece, scratch) for piece in some]
    os.close(descriptor)
    assert changed == [True, False, True], "the first hundred rows have no change"
    found = np.frombuffer((tmp_path / "out").read_bytes()[begin:], np.float32).reshape(300, 20)
    before = np.frombuffer(source.read_bytes()[begin:], np.float32).reshape(300, 20)
    np.testing.assert_allclose(found, before + delta, atol=2e-6)


def test_a_piece_of_a_source_that_got_shorter_is_refused(shard, tmp_path) -> None:
    planned, source, _ = shard
    with source.open("r+b") as stream:
        stream.truncate(1000)
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    with pytest.raises(ArtefactError):
        Merger(planned, descriptor)(Piece(0, 0, 300, 0), Scratch())
    os.close(descriptor)
