"""LoRA layers that compute in one step are asked of PEFT where a base has layers they serve."""

from __future__ import annotations

import pytest
import real_step
import torch
from peft import LoraConfig, PeftModel, TaskType
from transformers import AutoConfig, AutoModelForCausalLM

from peftkit.adapters.continued import load_adapter
from peftkit.adapters.fused import fused_layers
from peftkit.adapters.peft_types import Lora


def base():
    torch.manual_seed(0)
    values = {**real_step.LLAMA, "num_hidden_layers": 2}
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(values.pop("model_type"), **values)
    )


def lora(*, is_fused: bool, **options) -> Lora:
    made = Lora(
        LoraConfig(r=4, target_modules="all-linear", task_type=TaskType.CAUSAL_LM, **options)
    )
    made.is_fused = is_fused
    return made


def test_every_linear_layer_is_fused_and_siblings_know_each_other() -> None:
    attached = lora(is_fused=True).attach(base())
    assert fused_layers(attached) == (14, 14)
    block = attached.base_model.model.model.layers[0]
    assert block.self_attn.q_proj.siblings is block.self_attn.v_proj.siblings is not None
    assert block.mlp.gate_proj.siblings is block.mlp.up_proj.siblings is not None
    assert block.mlp.down_proj.siblings is None
    assert fused_layers(lora(is_fused=False).attach(base())) == (0, 14)
    assert fused_layers(base()) == (0, 0)


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_models_gradients_are_those_of_plain_peft(use_dora: bool) -> None:
    found = []
    for is_fused in (False, True):
        torch.manual_seed(1)
        model = lora(is_fused=is_fused, use_dora=use_dora, init_lora_weights=False).attach(base())
        loss = model(**real_step.token_batch(2, 10)).loss
        loss.backward()
        found.append(
            (loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        )
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, rtol=1e-3, atol=1e-5, msg=name)


def test_an_adapter_goes_on_fused(tmp_path) -> None:
    first = lora(is_fused=True).attach(base())
    first.save_pretrained(tmp_path)
    again = load_adapter(base(), tmp_path, is_trainable=True, is_fused=True)
    assert fused_layers(again) == (14, 14)
    plain = PeftModel.from_pretrained(base(), tmp_path)
    batch = real_step.token_batch(2, 10)
    torch.testing.assert_close(again(**batch).logits, plain(**batch).logits)
