"""What FSDP2 cuts together, and what it cannot cut."""

from __future__ import annotations

import pytest
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from peftkit.errors import UsageError
from peftkit.memory.cutting import block_classes, shared_modules

SIZE = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2}  # fmt: skip


def llama(*, is_tied: bool = True) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZE, tie_word_embeddings=is_tied))


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


@pytest.mark.parametrize(
    ("model", "blocks"),
    [
        (llama(), ["LlamaDecoderLayer"]),
        (t5(), ["T5Block"]),
        # Its embeddings are named beside its layers, and accelerate cuts them by themselves.
        (BertForSequenceClassification(BertConfig(**SIZE)), ["BertLayer"]),
    ],
    ids=["llama", "t5", "bert"],
)
def test_blocks_are_cut_and_what_holds_the_embedding_is_none(
    model: PreTrainedModel, blocks: list[str]
) -> None:
    assert block_classes(model) == blocks


def test_a_frozen_weight_that_many_read_stays_whole_and_a_trained_one_is_refused() -> None:
    assert shared_modules(llama(), "method.sft.fsdp") == []  # accelerate cuts head and embedding
    model = t5()
    with pytest.raises(UsageError, match=r"^method\.seq2seq\.fsdp: shared, encoder\.embed_tokens"):
        shared_modules(model, "method.seq2seq.fsdp")
    model.requires_grad_(False)
    found = shared_modules(model, "method.seq2seq.fsdp")
    assert model.shared in found
    assert model.lm_head in found


def test_trained_rows_of_a_tied_embedding_are_refused_by_name() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [1]})
    with pytest.raises(UsageError, match=r"embed_tokens\.token_adapter.*lm_head\.token_adapter"):
        shared_modules(get_peft_model(llama(), config), "method.sft.fsdp")
    apart = get_peft_model(llama(is_tied=False), config)
    assert shared_modules(apart, "method.sft.fsdp") == []
