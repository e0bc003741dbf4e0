"""What the plan decides beyond deltas: dtypes, ties, and what cannot be merged into."""

from __future__ import annotations

import json

import merge_combinations
import merge_fixture
import pytest
import torch
from safetensors.torch import load_file, save_file

from peftkit.errors import ArtefactError
from peftkit.merging.adapter import open_adapter
from peftkit.merging.folder import model_config
from peftkit.merging.plan import plan_copy, plan_merge, same_bytes
from peftkit.merging.weights_io import open_checkpoint, open_shard

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


def plan(base, adapter):
    config = model_config(base)
    return plan_merge(open_adapter(adapter, open_checkpoint(base), model_config=config), config)


@pytest.fixture
def base(tmp_path):
    return merge_fixture.make_base("llama-tied", tmp_path / "base")


def make(base, tmp_path, **options):
    config = merge_combinations.lora(**{"target_modules": ["q_proj"], **options})()
    return merge_fixture.make_adapter(base, tmp_path / "adapter", config)


def test_what_was_saved_in_float32_is_written_in_the_bases_dtype(base, tmp_path) -> None:
    planned = plan(base, make(base, tmp_path, modules_to_save=["norm"]))
    (norm,) = [t for s in planned.shards for t in s.tensors if t.name == "model.norm.weight"]
    assert (norm.source.dtype, norm.dtype, norm.is_copied) == ("F32", "BF16", False)


def test_a_head_that_leaves_its_tie_is_new_and_said(base, tmp_path) -> None:
    planned = plan(base, make(base, tmp_path, modules_to_save=["lm_head"]))
    assert "lm_head.weight" in planned.changed
    assert planned.config["tie_word_embeddings"] is False
    assert "ties lm_head.weight to its embedding" in planned.notes[0]


def test_an_adapter_away_from_the_embedding_leaves_the_config_alone(base, tmp_path) -> None:
    planned = plan(base, make(base, tmp_path))
    assert planned.config == model_config(base)
    assert planned.notes == ()


def test_integers_are_not_merged_into(base, tmp_path) -> None:
    adapter = make(base, tmp_path)
    tensors = load_file(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(ArtefactError, match="stored as I8, which cannot be merged into"):
        plan(base, adapter)


def test_an_embedding_of_another_width_is_not_a_resized_vocabulary(base, tmp_path) -> None:
    adapter = make(base, tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"] = torch.zeros(50, 16)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(
        ArtefactError, match=r"\[50, 16\] in the adapter and \[48, 32\] in the base"
    ):
        plan(base, adapter)


def test_a_copy_changes_nothing(base) -> None:
    planned = plan_copy(open_checkpoint(base), model_config(base))
    assert planned.changed == () and all(shard.copy_of for shard in planned.shards)
    assert json.dumps(planned.config) == json.dumps(model_config(base))


def test_same_bytes_sees_one_bit(tmp_path) -> None:
    one = torch.randn(100, 7)
    other = one.clone()
    other[99, 6] += 1e-6
    save_file({"a": one, "b": one.clone(), "c": other}, tmp_path / "x.safetensors")
    a, b, c = open_shard(tmp_path / "x.safetensors").tensors
    assert same_bytes(a, b) and not same_bytes(a, c)
