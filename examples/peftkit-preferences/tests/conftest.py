"""A small model with random weights, and the tokenizer of peftkit's embedded one."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.embedded import model_path


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path("docstring-lm"))


@pytest.fixture
def make_model(tokenizer: Any) -> Any:
    """Return what makes the same model with the same adapter each time."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    def make() -> Any:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(LlamaForCausalLM(config), lora)

    return make
