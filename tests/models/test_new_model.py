"""A new model is what its keys and its tokenizer say; keys that its class lacks are refused."""

from __future__ import annotations

import pytest
import torch

from peftkit.errors import UsageError
from peftkit.models.load import load_config
from peftkit.models.new_model import init_model
from peftkit.models.tokenizer import load_tokenizer
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import ModelSection


def test_a_new_model_is_sized_to_its_tokenizer_and_seeded(tiny_model) -> None:
    tokenizer = load_tokenizer(ModelSection(path=str(tiny_model)), tiny_model)
    keys = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 64}  # fmt: skip
    new = ModelSection(config=keys, dtype="float32")
    one, two = (init_model(new, kind=CAUSAL_LM, seed=seed, tokenizer=tokenizer) for seed in (7, 7))
    assert one.config.vocab_size == len(tokenizer)
    assert one.config.eos_token_id == tokenizer.eos_token_id
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert load_config(new).hidden_size == 32


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"model_type": "lama"}, "model.config.model_type: this transformers has no 'lama'",
         "did you mean llama?"),
        ({"model_type": "llama", "hiden_size": 32},
         "model.config.hiden_size: LlamaConfig has no such key", "did you mean hidden_size?"),
    ],
)  # fmt: skip
def test_a_new_model_s_keys_are_checked(keys, message, hint) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(ModelSection(config=keys))
    assert (caught.value.message, caught.value.hint) == (message, hint)
