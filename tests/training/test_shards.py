"""What of a model is cut over processes, and what each of them keeps whole."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from peftkit.training.shards import (
    is_sharded,
    local,
    settle_shards,
    whole,
    whole_state,
)

SIZE = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2}  # fmt: skip


def llama(*, is_tied: bool = True) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=is_tied))


def test_what_is_not_cut_is_left_as_it_is() -> None:
    model, tensor = llama(), torch.ones(3)
    assert not is_sharded(model)
    assert whole_state(model, is_kept=True) is None
    assert local(tensor) is tensor
    assert whole(tensor) is tensor


def test_the_recipe_s_own_blocks_stay() -> None:
    def settled(stated: list[str] | None) -> SimpleNamespace:
        plugin = SimpleNamespace(transformer_cls_names_to_wrap=stated, ignored_modules=None)
        state, args = SimpleNamespace(fsdp_plugin=plugin), SimpleNamespace(device="cpu")
        accelerator = SimpleNamespace(state=state)
        trainer = SimpleNamespace(model=llama(), args=args, accelerator=accelerator)
        settle_shards(trainer, "method.sft.fsdp")  # type: ignore[arg-type]
        return plugin

    assert settled(None).transformer_cls_names_to_wrap == ["LlamaDecoderLayer"]
    assert settled(["LlamaMLP"]).transformer_cls_names_to_wrap == ["LlamaMLP"]
    assert settled(None).ignored_modules is None
