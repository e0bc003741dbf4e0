"""What attaching does to any base."""

from __future__ import annotations

import pytest
import torch

from peftkit.adapters.base import count_parameters, task_type
from peftkit.adapters.peft_types import Lora


@pytest.fixture
def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model)


def lora():
    from peft import LoraConfig

    return Lora(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def test_counts_trainable_and_total(base) -> None:
    num_base = sum(p.numel() for p in base.parameters())
    attached = lora().attach(base)
    expected = 2 * (4 * (64 + 64) + 4 * (64 + 32))
    assert count_parameters(attached) == (expected, num_base + expected)


def test_adapter_weights_are_float32_on_a_half_precision_base(base) -> None:
    attached = lora().attach(base.to(torch.bfloat16))
    dtypes = {p.dtype for p in attached.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}


def test_the_recipe_s_config_is_left_alone(base) -> None:
    adapter = lora()
    adapter.attach(base)
    assert adapter.config.task_type is None
    assert adapter.config.base_model_name_or_path is None


@pytest.mark.parametrize(
    ("auto_class", "expected"),
    [
        ("AutoModelForCausalLM", "CAUSAL_LM"),
        ("AutoModelForSequenceClassification", "SEQ_CLS"),
        ("AutoModelForTokenClassification", "TOKEN_CLS"),
        ("AutoModelForQuestionAnswering", "QUESTION_ANS"),
        ("AutoModel", None),
    ],
)
def test_task_type_follows_the_model(base, auto_class: str, expected: str | None) -> None:
    import transformers

    model = getattr(transformers, auto_class).from_config(base.config)
    assert task_type(model) == expected


def test_task_type_of_an_encoder_decoder() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=32, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    assert task_type(T5ForConditionalGeneration(config)) == "SEQ_2_SEQ_LM"
