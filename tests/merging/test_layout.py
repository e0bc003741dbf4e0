"""Headers known in advance: the base's own where nothing moves, a valid new one where it does."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from peftkit.merging.layout import Written, index_of, lay_out
from peftkit.merging.weights_io import open_checkpoint


@pytest.fixture
def base(tmp_path):
    for number, names in enumerate(("ab", "c"), start=1):
        tensors = {name: torch.zeros(3, 2, dtype=torch.bfloat16) for name in names}
        save_file(tensors, tmp_path / f"model-{number}.safetensors", metadata={"format": "pt"})
    places = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    index = json.dumps({"metadata": {}, "weight_map": places})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    return open_checkpoint(tmp_path)


def everything(base):
    return {name: Written(name, tensor, tensor.dtype) for name, tensor in base.tensors.items()}


def test_an_unchanged_shard_is_a_copy_with_its_own_header(base) -> None:
    shards = lay_out(base, everything(base))
    assert [shard.copy_of for shard in shards] == list(base.shards)
    assert [shard.num_bytes for shard in shards] == [shard.num_bytes for shard in base.shards]


def test_added_and_dropped_tensors_give_a_header_that_safetensors_reads(base, tmp_path) -> None:
    written = everything(base)
    del written["a"]
    new = Written("new", base.tensors["c"], "F32", shape=(2, 3))
    one, two = lay_out(base, written, [("b", new)])
    assert [tensor.name for tensor in one.tensors] == ["b", "new"]
    assert two.copy_of is base.shards[1]
    (tmp_path / "x").write_bytes(one.header + bytes(one.num_bytes - len(one.header)))
    with safe_open(tmp_path / "x", framework="pt") as stream:
        assert {name: stream.get_tensor(name).shape for name in stream.keys()} == {  # noqa: SIM118
            "b": (3, 2), "new": (2, 3),
        }  # fmt: skip
        assert stream.metadata() == {"format": "pt"}
    assert len(one.header) % 8 == 0


def test_the_index_counts_bytes_and_parameters(base) -> None:
    index = index_of(lay_out(base, everything(base)))
    assert index is not None
    assert index["metadata"] == {"total_parameters": 18, "total_size": 36}
    assert index["weight_map"]["c"] == "model-2.safetensors"


def test_one_file_has_no_index(base, tmp_path) -> None:
    (tmp_path / "one").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "one/model.safetensors")
    one = open_checkpoint(tmp_path / "one")
    assert index_of(lay_out(one, everything(one))) is None
