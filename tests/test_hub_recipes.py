"""Recipes for real Hub models build against the installed stack, from the models' public facts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from peftkit.adapters.base import count_parameters
from peftkit.recipe.build import Built, build
from peftkit.recipe.load import load_recipe
from peftkit.system.machine import describe_machine

HUB = Path(__file__).resolve().parent.parent / "recipes" / "hub"
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class Facts:
    """What a model's public config.json says, and how many parameters its page states."""

    path: str
    config: dict
    num_parameters: int
    num_trainable: int
    """Of the recipe's adapter: r * (rows + columns), summed over its targets."""
    auto_class: str = "AutoModelForCausalLM"
    smaller: dict | None = None
    """Sizes of the same shape made small; those of a decoder when absent."""


def lora_parameters(r: int, layers: int, *, hidden: int, mlp: int, q: int, k: int) -> int:
    """Count a LoRA on all linear modules of a gated-MLP decoder; `q`, `k` are rows of those."""
    attention = (hidden + q) + 2 * (hidden + k) + (q + hidden)
    return layers * r * (attention + 3 * (hidden + mlp))


def t5_lora_parameters(r: int, layers: int, *, hidden: int, mlp: int, heads: int) -> int:
    """Count a LoRA on all linear modules of a gated T5; `heads` is the width of all heads."""
    attention, feed_forward = 4 * (hidden + heads), 3 * (hidden + mlp)
    return layers * r * ((attention + feed_forward) + (2 * attention + feed_forward))


def marian_lora_parameters(r: int, layers: int, *, hidden: int, mlp: int) -> int:
    """Count a LoRA on all linear modules of an encoder and a decoder of that many layers each."""
    attention, feed_forward = 4 * 2 * hidden, 2 * (hidden + mlp)
    return layers * r * ((attention + feed_forward) + (2 * attention + feed_forward))


def bert_lora_parameters(r: int, layers: int, *, hidden: int, mlp: int) -> int:
    """Count a LoRA on all linear modules of a BERT, its pooler included."""
    return r * (layers * (4 * 2 * hidden + 2 * (hidden + mlp)) + 2 * hidden)


QWEN = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
    "eos_token_id": 151645,
}
QWEN_LORA = lora_parameters(16, 24, hidden=896, mlp=4864, q=896, k=128)
BERT_BASE = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
}
BERT_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "num_attention_heads": 4,
}


def bert_classifier(num_labels: int, *, is_full: bool = False) -> Facts:
    """State BERT-base with a new head, and a LoRA of rank 16 over it."""
    head = num_labels * (768 + 1)
    num_parameters = 109_482_240 + head
    lora = bert_lora_parameters(16, 12, hidden=768, mlp=3072) + head
    return Facts(
        "google-bert/bert-base-uncased",
        {**BERT_BASE, "num_labels": num_labels},
        num_parameters,
        num_parameters if is_full else lora,
        "AutoModelForSequenceClassification",
        BERT_SMALL,
    )


FACTS = {
    "answer-squad-bert": Facts(
        "google-bert/bert-base-uncased",
        BERT_BASE,
        # the body's without its pooler, and a new head for starts and ends
        109_482_240 - (768 * 768 + 768) + 2 * 768 + 2,
        bert_lora_parameters(16, 12, hidden=768, mlp=3072) - 16 * 2 * 768 + 2 * 768 + 2,
        "AutoModelForQuestionAnswering",
        BERT_SMALL,
    ),
    "classify-mrpc-bert": bert_classifier(2),
    "classify-mrpc-bert-full": bert_classifier(2, is_full=True),
    "classify-sst2-bert": bert_classifier(2),
    "regress-stsb-bert": bert_classifier(1),
    "pretrain-bert-base": Facts(
        "google-bert/bert-base-uncased",
        BERT_BASE,
        # the body's; the words' transform, norm and biases; and two next sentences
        109_482_240 + 768 * 769 + 2 * 768 + 30522 + 2 * 769,
        bert_lora_parameters(64, 12, hidden=768, mlp=3072) + 64 * 2 * 768 + 64 * (768 + 2),
        "AutoModelForPreTraining",
        BERT_SMALL,
    ),
    "summarize-flan-t5-small": Facts(
        "google/flan-t5-small",
        {
            "model_type": "t5",
            "vocab_size": 32128,
            "d_model": 512,
            "d_ff": 1024,
            "d_kv": 64,
            "num_layers": 8,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
        },
        # transformers 5 ties the head, of which the checkpoint brings one of its own
        76_961_152 - 32128 * 512,
        t5_lora_parameters(16, 8, hidden=512, mlp=1024, heads=384),
        "AutoModelForSeq2SeqLM",
        {
            "d_model": 64,
            "d_ff": 128,
            "d_kv": 16,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 512,
        },
    ),
    **{
        f"{name}-qwen2.5-0.5b": Facts("Qwen/Qwen2.5-0.5B-Instruct", QWEN, 494_032_768, QWEN_LORA)
        for name in ("dpo", "grpo", "kto", "summarize")
    },
    "reward-qwen2.5-0.5b": Facts(
        "Qwen/Qwen2.5-0.5B-Instruct",
        QWEN,
        # with a head, here of two outputs as a configuration has them
        494_032_768 + 2 * 896,
        QWEN_LORA + 2 * 896,
        "AutoModelForSequenceClassification",
    ),
    "translate-nllb-200-distilled-600m": Facts(
        "facebook/nllb-200-distilled-600M",
        {
            "model_type": "m2m_100",
            "vocab_size": 256206,
            "d_model": 1024,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
            "encoder_attention_heads": 16,
            "decoder_attention_heads": 16,
            "max_position_embeddings": 1024,
            "decoder_start_token_id": 2,
        },
        615_073_792,
        marian_lora_parameters(16, 12, hidden=1024, mlp=4096),
        "AutoModelForSeq2SeqLM",
        {
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "vocab_size": 512,
        },
    ),
    "translate-opus-mt-en-de": Facts(
        "Helsinki-NLP/opus-mt-en-de",
        {
            "model_type": "marian",
            "vocab_size": 58101,
            "decoder_vocab_size": 58101,
            "d_model": 512,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_ffn_dim": 2048,
            "decoder_ffn_dim": 2048,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "max_position_embeddings": 512,
            "pad_token_id": 58100,
            "eos_token_id": 0,
            "decoder_start_token_id": 58100,
        },
        # sines of both positions among them, which are held but not trained
        74_410_496,
        marian_lora_parameters(16, 6, hidden=512, mlp=2048),
        "AutoModelForSeq2SeqLM",
        {
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "vocab_size": 512,
            "decoder_vocab_size": 512,
            "pad_token_id": 511,
            "decoder_start_token_id": 511,
        },
    ),
    "translate-llama-3.2-3b": Facts(
        "meta-llama/Llama-3.2-3B-Instruct",
        {
            "model_type": "llama",
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rope_parameters": {**LLAMA3_ROPE, "factor": 32.0},
            "tie_word_embeddings": True,
            "vocab_size": 128256,
            "eos_token_id": [128001, 128008, 128009],
        },
        3_212_749_824,
        lora_parameters(16, 28, hidden=3072, mlp=8192, q=3072, k=1024),
    ),
    "chat-llama-3.1-8b-qlora": Facts(
        "meta-llama/Llama-3.1-8B-Instruct",
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rope_parameters": {**LLAMA3_ROPE, "factor": 8.0},
            "tie_word_embeddings": False,
            "vocab_size": 128256,
            "eos_token_id": [128001, 128008, 128009],
        },
        8_030_261_248,
        lora_parameters(16, 32, hidden=4096, mlp=14336, q=4096, k=1024),
    ),
}
SMALLER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "eos_token_id": 0,
}


@cache
def built(name: str) -> Built:
    return build(load_recipe(HUB / f"{name}.yaml"), describe_machine())


def config_of(name: str, **changes):
    from transformers import AutoConfig

    return AutoConfig.for_model(**{**FACTS[name].config, **changes})


def auto_class_of(name: str):
    import transformers

    return getattr(transformers, FACTS[name].auto_class)


def test_every_hub_recipe_has_its_facts() -> None:
    assert sorted(FACTS) == sorted(file.stem for file in HUB.glob("*.yaml"))


@pytest.mark.recipe
@pytest.mark.parametrize("name", FACTS)
def test_the_real_sizes_take_the_adapter(name: str) -> None:
    facts = FACTS[name]
    assert built(name).recipe.model.path == facts.path
    assert built(name).method.kind.auto_class == facts.auto_class
    with torch.device("meta"):
        dtype = getattr(torch, built(name).recipe.model.dtype)
        base = auto_class_of(name).from_config(config_of(name), dtype=dtype)
    assert count_parameters(base)[1] == facts.num_parameters
    attached = built(name).adapter.attach(base)
    trainable, total = count_parameters(attached)
    assert trainable == facts.num_trainable
    is_whole = built(name).recipe.adapter.is_full
    assert total == facts.num_parameters + (0 if is_whole else trainable)
    assert {p.dtype for p in attached.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.recipe
@pytest.mark.parametrize("name", FACTS)
def test_the_same_shape_made_small_takes_a_step(name: str, tmp_path) -> None:
    config = config_of(name, **(FACTS[name].smaller or SMALLER))
    auto_class = auto_class_of(name)
    auto_class.from_config(config).save_pretrained(tmp_path)
    quantizer = built(name).quantizer
    keywords = {"dtype": torch.bfloat16}
    if quantizer is not None:
        quantizer.check(device="cpu")
        keywords |= {"quantization_config": quantizer.native, "device_map": {"": "cpu"}}
    base = auto_class.from_pretrained(tmp_path, **keywords)
    if quantizer is not None:
        quantizer.prepare(base)
    model = built(name).adapter.attach(base).train()
    ids = torch.arange(5, 21).unsqueeze(0)
    with torch.autocast("cpu", torch.bfloat16):
        auto = FACTS[name].auto_class
        is_labelled = "Classification" in auto
        label = torch.tensor([1], dtype=torch.float if config.num_labels == 1 else torch.long)
        labels = label if is_labelled else ids.clone()
        pairs = {"next_sentence_label": torch.tensor([1])} if "PreTraining" in auto else {}
        answer = {"start_positions": torch.tensor([3]), "end_positions": torch.tensor([5])}
        targets = answer if "QuestionAnswering" in auto else {"labels": labels, **pairs}
        model(input_ids=ids, **targets).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


def test_no_recipe_trusts_remote_code() -> None:
    for name in FACTS:
        section = built(name).recipe.model
        assert not section.trust_remote_code
