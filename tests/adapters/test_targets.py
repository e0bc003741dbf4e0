"""Names in an adapter's config that match nothing are refused, all at once, with the nearest."""

from __future__ import annotations

import logging

import pytest

from peftkit.adapters.peft_types import Lora, TrainableTokens
from peftkit.adapters.targets import linear_names
from peftkit.errors import UsageError

LINEAR = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


@pytest.fixture
def base(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model)


def attach(base, **options):
    from peft import LoraConfig

    return Lora(LoraConfig(**options)).attach(base)


def refusal(base, **options) -> UsageError:
    with pytest.raises(UsageError) as caught:
        attach(base, **options)
    return caught.value


def test_lists_linear_modules_without_the_head(base) -> None:
    assert ", ".join(linear_names(base)) == LINEAR


def test_targets_that_match_nothing(base) -> None:
    error = refusal(base, target_modules=["query", "value"])
    assert error.message == (
        "adapter.lora.target_modules: 'query', 'value' match nothing in LlamaForCausalLM"
    )
    assert error.hint == f"its linear modules are {LINEAR}"
    assert error.exit_code == 2


def test_targets_that_match_in_part_name_the_entry_and_the_nearest(base) -> None:
    error = refusal(base, target_modules=["q_proj", "v_prj"])
    assert error.message == (
        "adapter.lora.target_modules: 'v_prj' matches nothing in LlamaForCausalLM"
    )
    assert error.hint == f"did you mean v_proj? its linear modules are {LINEAR}"


def test_following_the_hint_works(base) -> None:
    attached = attach(base, target_modules=["q_proj", "v_proj"])
    assert len(attached.base_model.targeted_module_names) == 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"target_modules": r".*\.query"}, r"target_modules: '.*\\.query'"),
        ({"target_modules": ["q_proj"], "exclude_modules": ["layers.9.q_proj"]}, "exclude_modules"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["score"]}, "modules_to_save: 'score'"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1, 7]}, "layers_to_transform: '7'"),
        ({"target_parameters": ["q_proj.wieght"]}, "target_parameters: 'q_proj.wieght'"),
        (
            {"target_modules": ["q_proj"], "trainable_token_indices": [4, 512]},
            "trainable_token_indices: '512'",
        ),
    ],
)
def test_every_kind_of_name_is_checked(base, options, named) -> None:
    assert named in refusal(base, **options).message


def test_several_problems_come_together(base) -> None:
    error = refusal(base, target_modules=["q_prj"], modules_to_save=["score"])
    assert error.message == (
        "adapter.lora.target_modules: 'q_prj'; adapter.lora.modules_to_save: 'score'"
        " match nothing in LlamaForCausalLM"
    )


def test_a_broken_regular_expression_is_named(base) -> None:
    error = refusal(base, target_modules="q_proj(")
    assert "is no regular expression" in error.message
    assert "write a list" in error.hint


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_matches_no_target_is_refused(base, key: str) -> None:
    error = refusal(base, target_modules=["q_proj"], **{key: {"v_proj": 4}})
    assert error.message == f"adapter.lora.{key}: 'v_proj' matches none of 2 targeted modules"
    assert error.hint == "they end in q_proj"


def test_a_rank_above_every_module_is_refused(base) -> None:
    error = refusal(base, r=65, target_modules=["q_proj", "v_proj"])
    assert error.message.startswith("adapter.lora.r: 65 is larger than the smaller side of every")
    assert error.hint == "above 64 rank adds parameters and nothing else; say r: 64 or less"


def test_a_rank_above_some_modules_is_said(base, caplog) -> None:
    with caplog.at_level(logging.WARNING, "peftkit"):
        attach(base, r=64, target_modules=["q_proj", "v_proj"])
    assert "r exceeds the smaller side of 2 of 4 targeted modules (v_proj)" in caplog.text


def test_an_adapter_on_the_head_is_refused(tmp_path) -> None:
    import tiny
    from transformers import AutoModelForCausalLM

    folder = tiny.tiny_llama(tmp_path, tie_word_embeddings=False)
    untied = AutoModelForCausalLM.from_pretrained(folder)
    error = refusal(untied, target_modules=["q_proj", "lm_head"])
    assert error.message.startswith("adapter.lora: this adapter is on the output head")
    assert error.hint == "remove the head from target_modules; modules_to_save trains it whole"


def test_trained_tokens_of_a_tied_base_are_refused(base) -> None:
    from peft import TrainableTokensConfig

    with pytest.raises(UsageError, match="which the base ties to its embedding") as caught:
        TrainableTokens(TrainableTokensConfig(token_indices=[5])).attach(base)
    assert "modules_to_save: [embed_tokens]" in caught.value.hint


def test_all_linear_leaves_out_what_a_scan_reads_past_its_module(caplog) -> None:
    from small_models import small_model

    with caplog.at_level(logging.WARNING, "peftkit"):
        attached = attach(small_model("mamba"), target_modules="all-linear")
    assert {name.split(".")[-1] for name in attached.base_model.targeted_module_names} == {
        "in_proj"
    }
    assert "all-linear leaves out x_proj, dt_proj, out_proj: the mixer reads its" in caplog.text
    error = refusal(small_model("mamba"), target_modules=["in_proj", "dt_proj"])
    assert "dt_proj of MambaForCausalLM is a Linear, which gives its weight to a scan" in str(error)


def test_an_adapter_on_such_a_module_would_stay_at_zero() -> None:
    """What is refused: plain peft takes it, and the adapter gets no gradient."""
    import torch
    from peft import LoraConfig, get_peft_model
    from small_models import small_model

    model = get_peft_model(small_model("mamba"), LoraConfig(target_modules=["dt_proj", "in_proj"]))
    ids = torch.arange(5, 17).reshape(1, 12)
    model(input_ids=ids, labels=ids).loss.backward()
    moved = {n: p.grad is not None for n, p in model.named_parameters() if "lora_B" in n}
    assert {n.split(".")[-4]: moved[n] for n in moved} == {"dt_proj": False, "in_proj": True}


@pytest.mark.parametrize("excluded", [None, ["k_proj"], ".*k_proj"])
def test_all_linear_leaves_out_what_texts_do_not_pass_through(caplog, excluded) -> None:
    from small_models import small_config
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    eye = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=16,
    )  # fmt: skip
    config = LlavaConfig(vision_config=eye, text_config=small_config("llama"))
    model = LlavaForConditionalGeneration(config)
    with caplog.at_level(logging.WARNING, "peftkit"):
        attached = attach(model, target_modules="all-linear", exclude_modules=excluded)
    reached = attached.base_model.targeted_module_names
    assert reached
    assert all(name.startswith("model.language_model.") for name in reached)
    assert any(name.endswith("k_proj") for name in reached) is (excluded is None)
    assert "all-linear leaves out model.vision_tower, model.multi_modal_projector" in caplog.text


def test_layers_may_be_counted_from_the_end(base) -> None:
    attached = attach(base, r=2, target_modules=["q_proj", "v_proj"], layers_to_transform=[-1])
    names = attached.base_model.targeted_module_names
    assert len(names) == 2
    assert all(".layers.1." in f".{name}" for name in names)
    assert attached.peft_config["default"].layers_to_transform == [1]
