"""Every family of experts: attached by names, trained, read back by plain peft, and merged."""

from __future__ import annotations

import logging
from pathlib import Path

import merge_fixture
import pytest
import torch
from small_models import EXPERTS, small_model

from peftkit.adapters.continued import load_adapter
from peftkit.adapters.experts import expert_parameters
from peftkit.adapters.peft_types import Lora
from peftkit.errors import ArtefactError, UsageError
from peftkit.merge import merge

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]
QUICK = "qwen3_moe"
FAMILIES = [
    pytest.param(family, marks=() if family == QUICK else pytest.mark.slow) for family in EXPERTS
]
SAYS = {
    "laguna": ({"exclude_modules": ".*(shared_experts).*"}, "could not load this adapter again"),
}
"""Family -> what must be said, and why; the refusal's own hint says it."""
NOT_MERGED = {"inkling2_text": "made of the checkpoint's tensors by Interleave"}
IDS = torch.arange(10, 34).reshape(2, 12)


def attach(model, **options):
    from peft import LoraConfig

    return Lora(LoraConfig(**{"r": 4, "lora_alpha": 8, **options})).attach(model)


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_trained_saved_loaded_and_merged(family: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    small_model(family).save_pretrained(tmp_path / "base")

    def base():
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base")

    options = {"target_modules": "all-linear"}
    if family in SAYS:
        said, why = SAYS[family]
        with pytest.raises(UsageError, match=why):
            attach(base(), **options)
        options |= said
    stacks = expert_parameters(base())
    torch.manual_seed(0)
    model = attach(base(), **options)
    if not any("experts" in name for name in model.base_model.targeted_parameter_names):
        model = attach(base(), **options, target_parameters=stacks)
    reached = {".".join(name.split(".")[-2:]) for name in model.base_model.targeted_parameter_names}
    assert reached >= set(stacks)

    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.5)
    for _ in range(2):
        model.train()(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = {
        n for n, p in model.named_parameters() if "experts" in n and "lora_B" in n and p.any()
    }
    assert trained, "no expert moved"

    wanted, plain = logits_of(model), logits_of(base())
    assert not torch.allclose(wanted, plain, atol=1e-4)
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(base(), tmp_path / "adapter")
    torch.testing.assert_close(logits_of(again), wanted, rtol=0, atol=1e-5)
    ours = load_adapter(base(), tmp_path / "adapter", is_trainable=False)
    torch.testing.assert_close(logits_of(ours), wanted, rtol=0, atol=1e-5)
    if family in NOT_MERGED:
        with pytest.raises(ArtefactError, match=NOT_MERGED[family]):
            merge(tmp_path / "adapter", out=tmp_path / "out", base=str(tmp_path / "base"))
        return
    merge(tmp_path / "adapter", out=tmp_path / "out", base=str(tmp_path / "base"), verify=False)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits_of(merged), wanted, rtol=1e-4, atol=1e-4)


def test_old_names_of_experts_are_taken_for_stacks() -> None:
    model = attach(small_model(QUICK), target_modules=["gate_proj", "up_proj", "down_proj"])
    assert not model.base_model.targeted_module_names
    assert len(model.base_model.targeted_parameter_names) == 4


def test_half_of_a_fused_stack_is_refused() -> None:
    with pytest.raises(UsageError, match="without also targeting up_proj") as caught:
        attach(small_model(QUICK), target_modules=["gate_proj"])
    assert "under target_parameters" in caught.value.hint


def test_names_that_no_expert_has_are_refused_with_the_stacks() -> None:
    with pytest.raises(UsageError, match="'w1' matches nothing") as caught:
        attach(small_model(QUICK), target_modules=["w1"])
    assert "target_parameters: [experts.gate_up_proj, experts.down_proj]" in caught.value.hint


def test_a_users_own_pattern_is_still_held_against_the_stacks() -> None:
    projections = ["gate_proj", "up_proj", "down_proj"]
    model = attach(small_model(QUICK), target_modules=projections, rank_pattern={"down_proj": 2})
    assert model.base_model.model.model.layers[0].mlp.experts.r["default"] == 2
    with pytest.raises(UsageError, match=r"rank_pattern: 'q_proj' matches none of 4"):
        attach(small_model(QUICK), target_modules=projections, rank_pattern={"q_proj": 2})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"target_modules": r".*layers\.1\..*(q|down)_proj"}, "would adapt model.layers.0"),
        (
            {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
            "model.layers.0.mlp.experts.down_proj would be adapted as well",
        ),
    ],
)
def test_what_peft_would_widen_is_refused(options, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        attach(small_model(QUICK), **options)
    assert problem in caught.value.message
    assert "target_parameters" in caught.value.hint


@pytest.mark.parametrize("named", [["router"], r".*\.router"])
def test_a_router_that_only_inherits_from_a_linear_layer_is_left_out(named) -> None:
    """Its forward returns a tuple, which breaks PEFT's layer at the first step."""
    model = attach(small_model("phimoe"), target_modules="all-linear")
    assert not [n for n in model.base_model.targeted_module_names if n.endswith("router")]
    excluded = r".*layers\.0\..*"
    model = attach(small_model("phimoe"), target_modules="all-linear", exclude_modules=excluded)
    assert not [n for n in model.base_model.targeted_module_names if "router" in n or ".0." in n]
    with pytest.raises(UsageError, match=r"router of .* computes more than a linear layer"):
        attach(small_model("phimoe"), target_modules=named)


def test_dense_layers_that_peft_leaves_out_are_said_and_can_be_had(caplog) -> None:
    with caplog.at_level(logging.WARNING, "peftkit"):
        attach(small_model("glm4_moe"), target_modules="all-linear")
    (said,) = caplog.messages
    assert "6 linear modules that have them stay as they are (mlp.down_proj" in said
    names = said.partition("target_parameters: [")[2].partition("]")[0].split(", ")
    caplog.clear()
    attach(small_model("glm4_moe"), target_modules="all-linear", target_parameters=names)
    assert not caplog.messages


def test_experts_that_all_linear_does_not_reach_are_said(caplog) -> None:
    with caplog.at_level(logging.WARNING, "peftkit"):
        attach(small_model("granitemoe"), target_modules="all-linear")
    (said,) = caplog.messages
    assert "reaches no expert of GraniteMoeForCausalLM" in said
