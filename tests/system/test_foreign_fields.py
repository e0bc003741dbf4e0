"""Fields from anywhere are of their types and within bounds before anything is built from them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import ArtefactError
from peftkit.system.foreign_fields import (
    check_adapter_fields,
    check_config_fields,
    check_generation_fields,
    check_model_sizes,
    check_tokenizer_fields,
    find_redirecting,
)

LORA = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "layer_replication": None,
    "target_modules": ["q_proj"], "modules_to_save": None, "rank_pattern": {"q_proj": 4},
}  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "fields",
    [
        {"attn_implementation": {"": "org/kernels"}},
        {"attn_implementation": ["org/kernels"]},
        {"sub": [{"_experts_implementation_internal": "org/kernels"}]},
    ],
)
def test_code_is_found_however_deep(fields: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match="names code to download"):
        check_config_fields(fields, "config.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": "32"}, {"num_attention_heads": 0}, {"num_hidden_layers": 10_000_000},
        {"text_config": {"vocab_size": -1}}, {"hidden_size": 1.5}, {"vocab_size": True},
    ],
)  # fmt: skip
def test_sizes_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match=r"config\.json: .* is .*, not a number from"):
        check_model_sizes(fields, "config.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 10**9}, {"r": "8"}, {"lora_alpha": None}, {"peft_type": ["LORA"]},
        {"peft_type": None},
        {"target_modules": {"a": 1}}, {"rank_pattern": ["q"]}, {"rank_pattern": {"q": 10**8}},
        {"layer_replication": [[0, 1]] * 200_000}, {"layer_replication": [[0, 10**9]]},
        {"layer_replication": "x"}, {"modules_to_save": [1]},
    ],
)  # fmt: skip
def test_adapters_that_are_none(fields: dict[str, Any]) -> None:
    check_adapter_fields(LORA, "adapter_config.json")
    with pytest.raises(ArtefactError, match=r"adapter_config\.json: "):
        check_adapter_fields({**LORA, **fields}, "adapter_config.json")


@given(st.dictionaries(st.sampled_from(sorted(LORA)), ANY))
def test_any_value_passes_or_is_refused(fields: dict[str, Any]) -> None:
    for check in (check_adapter_fields, check_model_sizes, check_config_fields):
        with suppress(ArtefactError):
            check({**LORA, **fields}, "x")


def test_only_what_leads_elsewhere_than_peft_writes_is_redirecting() -> None:
    plain = {"megatron_core": "megatron.core", "auto_mapping": {"parent_library": "transformers.x"}}
    assert find_redirecting(plain) == []
    foreign = {"megatron_core": "evil", "auto_mapping": {"parent_library": "evil"}}
    assert find_redirecting({**foreign, "tokenizer_kwargs": {"trust_remote_code": True}}) == [
        "auto_mapping", "megatron_core", "tokenizer_kwargs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": float("inf")}, {"temperature": float("nan")}, {"temperature": "1"},
        {"eos_token_id": -5}, {"eos_token_id": [0, 1 << 40]}, {"pad_token_id": [[1]]},
        {"top_k": 1 << 62}, {"top_k": True}, {"num_beams": 100_000}, {"max_new_tokens": {}},
        {"stop_strings": 5}, {"stop_strings": ["a", 5]},
    ],
)  # fmt: skip
def test_generation_of_a_stranger_has_numbers_that_can_be_meant(fields: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match=next(iter(fields))):
        check_generation_fields(fields, "generation_config.json")


@pytest.mark.parametrize(
    "field",
    [{"task_type": []}, {"trainable_token_indices": "x"}, {"trainable_token_indices": [1 << 40]}],
)
def test_an_adapter_s_task_and_rows_are_of_their_types(field: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match=next(iter(field))):
        check_adapter_fields({**LORA, **field}, "adapter_config.json")
    check_adapter_fields({**LORA, "trainable_token_indices": {"wte": [5]}}, "adapter_config.json")


def test_a_longest_text_is_a_number() -> None:
    for sound in ({}, {"model_max_length": 2048}, {"model_max_length": 1e30}):
        check_tokenizer_fields(sound, "tokenizer_config.json")
    for wrong in ("x", [], True):
        with pytest.raises(ArtefactError, match="model_max_length"):
            check_tokenizer_fields({"model_max_length": wrong}, "tokenizer_config.json")


@pytest.mark.parametrize(
    "field", [{"architectures": [1]}, {"architectures": "x"}, {"model_type": []}]
)
def test_a_model_s_names_are_names(field: dict[str, Any]) -> None:
    with pytest.raises(ArtefactError, match=next(iter(field))):
        check_model_sizes(field, "config.json")


def test_what_models_say_of_generating_passes() -> None:
    import transformers

    check_generation_fields(transformers.GenerationConfig().to_dict(), "generation_config.json")
    stated = {"eos_token_id": [128001, 128009], "pad_token_id": -1, "temperature": 0.6, "top_k": 20}
    check_generation_fields(stated, "generation_config.json")


@given(st.dictionaries(st.sampled_from(["temperature", "eos_token_id", "top_k", "other"]), ANY))
def test_anything_said_of_generating_passes_or_is_named(fields: dict[str, Any]) -> None:
    with suppress(ArtefactError):
        check_generation_fields(fields, "generation_config.json")
