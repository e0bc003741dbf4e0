"""A recipe's settings on a device: what is stated wins, then decisions, then defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.memory.settings import checkpoints_activations, matrix_dtype, method_settings
from peftkit.planning import devices
from peftkit.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[2]
QLORA = ROOT / "recipes" / "hub" / "chat-llama-3.1-8b-qlora.yaml"
SMALL = ROOT / "recipes" / "summarize-lora.yaml"

FOUR_BITS = "model.quantize={bitsandbytes: {load_in_4bit: true}}"
IN_FLOAT32 = FOUR_BITS.replace("true", "true, bnb_4bit_compute_dtype: float32")


def test_stated_decided_and_default() -> None:
    settings = method_settings(load_recipe(QLORA), devices.of_size(24).as_machine())
    assert settings["optim"] == "paged_adamw_8bit", "stated"
    assert settings["bf16"] is True, "decided"
    assert settings["packing"] is False, "the class's default"
    assert checkpoints_activations(settings)


def test_a_statement_beats_the_decision() -> None:
    recipe = load_recipe(QLORA, ["method.sft.activation_checkpointing=false"])
    assert not checkpoints_activations(method_settings(recipe, devices.of_size(24).as_machine()))


def test_an_adapter_that_cannot_be_checkpointed_decides_so() -> None:
    recipe = load_recipe(SMALL, ["adapter={prefix_tuning: {num_virtual_tokens: 4}}"])
    assert not checkpoints_activations(method_settings(recipe, devices.of_size(24).as_machine()))


def test_the_older_name_counts_where_the_newer_is_silent() -> None:
    assert checkpoints_activations(
        {"activation_checkpointing": None, "gradient_checkpointing": True}
    )
    assert not checkpoints_activations(
        {"activation_checkpointing": False, "gradient_checkpointing": True}
    )
    assert not checkpoints_activations({})


@pytest.mark.parametrize(
    ("overrides", "device", "dtype"),
    [
        (["model.dtype=float32"], "h100", "float32"),
        (["model.dtype=float32", "method.sft.tf32=true"], "h100", "tf32"),
        (["model.dtype=bfloat16"], "h100", "bfloat16"),
        (["model.dtype=float16"], "t4", "float16"),
        (["model.dtype=auto"], "4090", "bfloat16"),
        (["model.dtype=bfloat16"], "t4", "bfloat16"),
        (["model.dtype=float32", "method.sft.fp16=true"], "t4", "float16"),
        # A quantized base multiplies in a dtype of its own, where autocast does not.
        (["model.dtype=bfloat16", IN_FLOAT32], "t4", "float32"),
        (["model.dtype=bfloat16", IN_FLOAT32], "h100", "bfloat16"),
        (["model.dtype=bfloat16", FOUR_BITS], "t4", "bfloat16"),
    ],
)
def test_dtype_of_matrix_products(overrides: list[str], device: str, dtype: str) -> None:
    recipe = load_recipe(SMALL, overrides)
    assert matrix_dtype(recipe, devices.find(device).as_machine()) == dtype
