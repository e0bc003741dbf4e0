"""Each thing that vLLM refuses or ignores is named with its file, field and way out."""

from __future__ import annotations

import pytest

from peftkit.exporters.vllm_lint import lint

SHAPES = {"base_model.model.a.lora_A.weight": (8, 4), "base_model.model.a.lora_B.weight": (4, 8)}
PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "init_lora_weights": True}


def _lint(config: dict, replaced: tuple[str, ...] = (), rank: int = 16):
    return lint({**PLAIN, **config}, SHAPES, replaced=replaced, max_lora_rank=rank)


def test_a_plain_lora_passes() -> None:
    assert _lint({}) == []


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"rank_pattern": {"a": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"a": 4}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights"),
        ({"kasa_config": {"beta": 1}}, "kasa_config"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_what_can_be_written_otherwise_is_no_refusal(config: dict, field: str) -> None:
    (finding,) = _lint(config)
    assert (finding.file, finding.field) == ("adapter_config.json", field)
    assert not finding.is_refusal


@pytest.mark.parametrize(
    ("config", "replaced", "field"),
    [
        ({"bias": "all"}, ("a.bias",), "bias"),
        ({"lora_bias": True}, ("a.bias",), "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, ("lm_head.weight",), "modules_to_save"),
        ({}, ("model.embed_tokens.weight",), "vocabulary"),
        ({"trainable_token_indices": [3]}, (), "trainable_token_indices"),
        ({"target_parameters": ["experts"]}, (), "target_parameters"),
        ({"fan_in_fan_out": True}, (), "fan_in_fan_out"),
    ],
)
def test_what_needs_another_model_is_refused(
    config: dict, replaced: tuple[str, ...], field: str
) -> None:
    (finding,) = _lint(config, replaced)
    assert finding.field == field
    assert finding.is_refusal
    assert "--to safetensors" in str(finding)


def test_an_encoder_decoder_is_refused_whatever_its_task() -> None:
    (finding,) = lint(PLAIN, SHAPES, replaced=(), max_lora_rank=16, is_encoder_decoder=True)
    assert finding.is_refusal
    assert "no LoRA for encoder-decoders" in str(finding)


def test_a_rank_above_the_servers_names_the_one_with_room() -> None:
    (finding,) = _lint({}, rank=1)
    assert "rank 8 is above" in finding.problem
    assert "max_lora_rank=8" in finding.remedy


def test_a_lora_on_the_vocabulary_is_told() -> None:
    shapes = {"base_model.model.model.embed_tokens.lora_embedding_A": (4, 9)}
    (finding,) = lint(PLAIN, shapes, replaced=(), max_lora_rank=16)
    assert finding.field == "target_modules"
    assert not finding.is_refusal


def test_all_problems_come_at_once() -> None:
    found = _lint({"use_dora": True, "bias": "all"}, ("a.bias", "b.bias"), rank=1)
    assert [finding.field for finding in found] == ["use_dora", "bias", "bias", "r"]


def test_a_saved_module_is_told_once_and_not_as_a_bias() -> None:
    (finding,) = _lint(
        {"modules_to_save": ["classifier"]}, ("classifier.weight", "classifier.bias")
    )
    assert finding.field == "modules_to_save"
