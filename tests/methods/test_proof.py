"""Whether a model goes a faster way is tried on two rows, not believed."""

from __future__ import annotations

import pytest
import real_step
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl import SFTConfig

from peftkit.kernels.head_loss import HeadScoring
from peftkit.methods.proof import disagreement
from peftkit.methods.trained_positions import scoring_of, way_of
from peftkit.plugins.speed import Speed, Way
from peftkit.plugins.trained_loss import TrainedLoss

BOTH = Way(scores_trained=True, by_rows=True)
TWO_LAYERS = {"num_hidden_layers": 2}
GRANITE = {**real_step.LLAMA, "model_type": "granite", "logits_scaling": 8.0}
COHERE = {**real_step.LLAMA, "model_type": "cohere", "logit_scale": 0.25, "pad_token_id": 0}


def make(values: dict, **options):
    values = {**values, **options}
    torch.manual_seed(0)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    return AutoModelForCausalLM.from_config(config).train()


def loss_of(model) -> TrainedLoss:
    args = SFTConfig(use_cpu=True, bf16=False, activation_checkpointing=False)
    return TrainedLoss(scoring_of(model.config, args))


@pytest.mark.parametrize(
    "values",
    [real_step.LLAMA, {**real_step.MISTRAL, "sliding_window": 3}, real_step.GPT2, GRANITE, COHERE],
    ids=lambda values: values["model_type"],
)
def test_families_compute_the_same_both_ways(values: dict) -> None:
    layers = {"n_layer": 2} if values["model_type"] == "gpt2" else TWO_LAYERS
    model = make(values, **layers)
    way = way_of(model.config, Speed(), is_flat=False)
    assert way == BOTH
    before = model.config._attn_implementation
    assert disagreement(way, model, loss_of(model)) is None
    assert model.training
    assert model.config._attn_implementation == before


def test_a_head_that_is_used_otherwise_is_found_out() -> None:
    model = make(GRANITE, **TWO_LAYERS)
    found = disagreement(BOTH, model, TrainedLoss(HeadScoring()))
    assert found is not None
    assert "computes other logits this way" in found


def test_rows_that_see_each_other_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface

    def leaking(module, query, key, value, mask, **_):
        found = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return found.transpose(1, 2).contiguous(), None

    monkeypatch.setattr("peftkit.kernels.row_attention.row_attention", leaking)
    model = make(real_step.LLAMA, **TWO_LAYERS)
    found = disagreement(BOTH, model, loss_of(model))
    monkeypatch.undo()
    from peftkit.kernels import row_attention

    row_attention.register()
    assert "peftkit_rows" in AttentionInterface._global_mapping
    assert found is not None
    assert "computes other logits this way" in found


def test_the_random_state_is_what_it_was() -> None:
    model = make(real_step.GPT2, n_layer=1)  # which has dropout
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    assert disagreement(BOTH, model, loss_of(model)) is None
    assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (real_step.GEMMA2, "bends its scores"),
        ({"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1}, "by itself"),
        ({"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2}, "by itself"),
    ],
)
def test_what_cannot_go_by_rows_says_why(values: dict, reason: str) -> None:
    values = dict(values)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    way = way_of(config, Speed(), is_flat=False)
    assert not way.by_rows
    assert any(reason in line for line in way.why_not), way.why_not


@pytest.mark.parametrize(
    ("is_asked", "balances", "scores"),
    [(True, False, False), (True, True, True), (False, False, True)],
)
def test_the_loss_that_balances_experts_is_not_lost(
    is_asked: bool, balances: bool, scores: bool
) -> None:
    config = AutoConfig.for_model("mixtral", num_hidden_layers=1, output_router_logits=is_asked)
    way = way_of(config, Speed(), is_flat=False, balances_experts=balances)
    assert way.scores_trained is scores
    assert scores or "balances its experts" in way.why_not[0]


def test_a_head_that_is_adapted_is_not_left_out() -> None:
    """An adapter that begins at nothing changes no logit, so that no comparison would find it."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        make(real_step.LLAMA, **TWO_LAYERS), LoraConfig(target_modules=["lm_head"])
    )
    found = disagreement(BOTH, model, loss_of(model))
    assert found is not None
    assert "head is adapted" in found


def test_a_head_that_is_trained_whole_or_by_rows_is_read_as_it_is() -> None:
    from peft import LoraConfig, get_peft_model

    options: list[dict] = [
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": {"embed_tokens": [7, 8], "lm_head": [7, 8]}},
    ]
    for one in options:
        config = LoraConfig(target_modules=["q_proj"], **one)
        model = get_peft_model(make(real_step.LLAMA, **TWO_LAYERS), config)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora" not in name:
                parameter.data += 0.5
        assert disagreement(BOTH, model, loss_of(model)) is None
        batch = real_step.token_batch(2, 9)
        loss_of(model)(model, batch).backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        model.zero_grad()
        model(**batch).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(
                    found[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name
                )


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_prompts_of_an_adapter_that_goes_on_are_not_taken_for_tokens() -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(make(real_step.LLAMA, **TWO_LAYERS), config)
    assert disagreement(BOTH, model, loss_of(model)) is not None
    assert disagreement(Way(scores_trained=True), model, loss_of(model)) is not None
