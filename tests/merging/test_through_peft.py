"""peft merges a layer at a time, with no more than that layer's weights in memory."""

from __future__ import annotations

import tracemalloc

import merge_fixture
import peft
import pytest
import torch

from peftkit.errors import ArtefactError
from peftkit.merging import through_peft
from peftkit.merging.adapter import open_adapter
from peftkit.merging.changes import Matrix
from peftkit.merging.folder import model_config
from peftkit.merging.weights_io import open_checkpoint

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return merge_fixture.make_base("llama", tmp_path_factory.mktemp("base"), dtype="float32")


def opened(adapter, base):
    return open_adapter(adapter, open_checkpoint(base), model_config=model_config(base))


def test_a_layer_gives_its_weights_back(base, tmp_path, monkeypatch) -> None:
    bases = []
    build = through_peft._Bare.attach
    monkeypatch.setattr(
        through_peft._Bare, "attach",
        lambda self, *a, **k: bases.append(self.model) or build(self, *a, **k),
    )  # fmt: skip
    config = peft.BOFTConfig(boft_block_size=4, target_modules=["q_proj", "v_proj"])
    adapter = merge_fixture.make_adapter(base, tmp_path / "adapter", config)
    found = opened(adapter, base)
    for name, (change,) in found.changes.items():
        change.load(Matrix(found.source(name)))
    (model,) = bases
    real = [
        parameter
        for name, parameter in model.named_parameters()
        if "boft" not in name and parameter.untyped_storage().nbytes() > 8
    ]
    assert real == []


def test_what_peft_cannot_merge_is_refused_with_its_reason(base, tmp_path) -> None:
    config = peft.LilyConfig(target_modules=["q_proj"])
    adapter = merge_fixture.make_adapter(base, tmp_path / "adapter", config)
    found = opened(adapter, base)
    (name, (change,)), *_ = found.changes.items()
    with pytest.raises(
        ArtefactError, match=r"peft cannot merge .*q_proj: .*not supported for Lily"
    ):
        change.load(Matrix(found.source(name)))


def test_an_adapter_of_other_layers_is_refused(base, tmp_path) -> None:
    settings = {**merge_fixture.SIZES, "num_hidden_layers": 3, "tie_word_embeddings": False}
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(tmp_path / "deeper")
    config = peft.BOFTConfig(boft_block_size=4, target_modules=["q_proj"])
    adapter = merge_fixture.make_adapter(tmp_path / "deeper", tmp_path / "adapter", config)
    with pytest.raises(ArtefactError, match=r"layers\.2.*which the base has no place for"):
        opened(adapter, base)


def test_stubs_have_shapes_and_take_one_numbers_memory() -> None:
    tracemalloc.start()
    stub = through_peft._stub(torch.empty(10_000, 10_000, device="meta"))
    assert stub.shape == (10_000, 10_000) and stub.untyped_storage().nbytes() == 8
    tracemalloc.stop()
