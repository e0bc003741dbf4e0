"""Random weights: shapes, dtypes, sharing and quantized storage as loading would make them."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.quantizers.bitsandbytes_storage import BitsAndBytesStorage

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def on_meta(**options: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM._from_config(LlamaConfig(**SIZES), **options)


def quantized_on_meta(**options: Any) -> Any:
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    model = on_meta(dtype=torch.bfloat16)
    quantizer = AutoHfQuantizer.from_config(BitsAndBytesConfig(**options), pre_quantized=False)
    with torch.device("meta"):
        quantizer.preprocess_model(model=model, device_map={"": "cpu"})
    quantizer.postprocess_model(model=model)
    return model


def test_shapes_dtypes_and_sharing_stay_and_the_loss_is_finite() -> None:
    import torch

    from peftkit.benching.random_weights import fill_with_random

    model = on_meta(dtype=torch.bfloat16)
    shapes = {name: (p.shape, p.dtype) for name, p in model.named_parameters()}
    fill_with_random(model, device="cpu", seed=0)
    assert {name: (p.shape, p.dtype) for name, p in model.named_parameters()} == shapes
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    ids = torch.randint(512, (2, 16))
    loss = model(input_ids=ids, labels=ids).loss
    assert 5 < loss.item() < 8, "about ln(512) = 6.2 for a model that knows nothing"
    loss.backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_the_same_seed_gives_the_same_weights() -> None:
    import torch

    from peftkit.benching.random_weights import fill_with_random

    first, second, third = on_meta(), on_meta(), on_meta()
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        fill_with_random(model, device="cpu", seed=seed)
    weights = [model.model.layers[1].mlp.up_proj.weight for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("double", [False, True])
def test_a_4_bit_base_is_stored_as_bitsandbytes_stores_it(double: bool) -> None:
    import torch

    from peftkit.benching.random_weights import fill_with_random

    model = quantized_on_meta(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double
    )
    fill_with_random(model, device="cpu", seed=0, storage=BitsAndBytesStorage())
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.uint8 and weight.numel() == 64 * 128 // 2
    assert weight.quant_state.quant_type == "nf4" and weight.quant_state.nested is double
    ids = torch.randint(512, (1, 8))
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)


def test_an_8_bit_base_is_stored_as_bitsandbytes_stores_it() -> None:
    import torch

    from peftkit.benching.random_weights import fill_with_random

    model = quantized_on_meta(load_in_8bit=True)
    fill_with_random(model, device="cpu", seed=0, storage=BitsAndBytesStorage())
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.dtype == torch.int8 and weight.SCB.shape == (128,)
    ids = torch.randint(512, (1, 8))
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)
