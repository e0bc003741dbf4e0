"""The fused LoRA layers against PEFT's own, by float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from peftkit.kernels import fused_lora
from peftkit.quantizers.bitsandbytes import BitsAndBytes


class Block(nn.Module):
    """Layers named as in Llama: three read one input, two another."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        for name, width in (("q_proj", 12), ("k_proj", 6), ("v_proj", 6)):
            setattr(self, name, nn.Linear(16, width, bias=bias))
        self.o_proj = nn.Linear(12, 16, bias=bias)
        self.gate_proj, self.up_proj = nn.Linear(16, 20, bias=bias), nn.Linear(16, 20, bias=bias)
        self.down_proj = nn.Linear(20, 16, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        x = x + self.o_proj(q * torch.cat([k, v], dim=-1).sigmoid())
        return x + self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


def adapted(config: LoraConfig, base: nn.Module, *, is_fused: bool, num_layers: int = 7) -> Any:
    config, base = copy.deepcopy(config), copy.deepcopy(base)
    if is_fused:
        assert fused_lora.register(config, base)
    torch.manual_seed(1)
    model = get_peft_model(base, config)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_" in name:  # B begins at zero, which would hide most of A's gradient
            parameter.data += 0.1 * torch.randn(parameter.shape).to(parameter.dtype)
    if is_fused:
        fused_lora.tie_siblings(model)
        assert fused_lora.fused_layers(model) == (num_layers, num_layers)
    return model


def gradients(model: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    y = model(x)
    y.float().square().mean().backward() if y.dtype != torch.float64 else (
        y.square().mean().backward()
    )
    found = {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    return {**found, "x": x.grad.double(), "y": y.detach().double()}


def distance(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    return max(float((found[n] - exact[n]).norm() / exact[n].norm()) for n in exact)


@settings(max_examples=25, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {
            "r": st.integers(1, 5),
            "use_rslora": st.booleans(),
            "use_dora": st.booleans(),
            "bias": st.sampled_from(["none", "all", "lora_only"]),
            "lora_bias": st.booleans(),
            "rank_pattern": st.sampled_from([{}, {"k_proj": 2}]),
        }
    ),
    has_bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    lora_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    rows=st.integers(1, 9),
)
def test_outputs_and_gradients_are_as_close_to_float64_as_pefts(
    options: dict[str, Any],
    has_bias: bool,
    dtype: torch.dtype,
    lora_dtype: torch.dtype,
    rows: int,
) -> None:
    torch.manual_seed(0)
    base = Block(bias=has_bias).to(dtype)
    options["lora_bias"] &= has_bias and not options["use_dora"]
    config = LoraConfig(lora_alpha=3, target_modules="all-linear", **options)
    x = torch.randn(2, rows, 16).to(dtype)
    models = [adapted(config, base, is_fused=fused) for fused in (False, True)]
    for model in models:
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(lora_dtype)
    exact_model = copy.deepcopy(models[0]).double()
    exact = gradients(exact_model, x.double())
    of_peft, fused = gradients(models[0], x), gradients(models[1], x)
    assert set(of_peft) == set(fused) == set(exact)
    eps = max(torch.finfo(dtype).eps, torch.finfo(lora_dtype).eps)
    assert distance(fused, exact) <= 1.3 * distance(of_peft, exact) + 2 * eps


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_step_equals_pefts_in_float32(dropout: float) -> None:
    base = Block(bias=True)
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", use_dora=False
    )
    x = torch.randn(3, 5, 16)
    of_peft = gradients(adapted(config, base, is_fused=False), x)
    fused = gradients(adapted(config, base, is_fused=True), x)
    for name, value in of_peft.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_saved_adapter_is_pefts_own(tmp_path: Any) -> None:
    base = Block(bias=False)
    config = LoraConfig(r=4, target_modules="all-linear", use_dora=True)
    for name in ("peft", "fused"):
        adapted(config, base, is_fused=name == "fused").save_pretrained(tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "peft" / file).read_bytes() == (tmp_path / "fused" / file).read_bytes()


def test_what_is_not_served_is_left_to_peft() -> None:
    """Two adapters at once, a merged one, and one that is switched off."""
    base = Block(bias=False)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    of_peft, fused = (adapted(config, base, is_fused=f) for f in (False, True))
    x = torch.randn(2, 3, 16)
    for model in (of_peft, fused):
        torch.manual_seed(5)
        model.add_adapter("other", config)
        model.base_model.set_adapter(["default", "other"])
    torch.testing.assert_close(fused(x), of_peft(x))
    with fused.disable_adapter():
        torch.testing.assert_close(fused(x), base(x))
    for model in (of_peft, fused):
        model.merge_adapter()
    torch.testing.assert_close(fused(x), of_peft(x))


def test_layers_that_do_not_read_one_input_stop_sharing() -> None:
    class Crossed(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.q_proj(x), self.k_proj(x + 1), self.v_proj(x + 1)
            return self.o_proj(q * torch.cat([k, v], dim=-1))

    base = Crossed(bias=False)
    config = LoraConfig(r=4, target_modules="all-linear")
    x = torch.randn(2, 3, 16)
    of_peft, fused = (adapted(config, base, is_fused=f) for f in (False, True))
    for _ in range(2):
        torch.testing.assert_close(fused(x), of_peft(x))
    assert fused.base_model.model.q_proj.siblings is None


def test_a_linear_layer_of_someone_else_is_left_to_peft() -> None:
    class Packed(nn.Linear):
        """Multiply by itself, as a quantizer's layer does."""

    model = nn.Sequential(Packed(8, 8), nn.Linear(8, 8))
    config = LoraConfig(r=4, target_modules=["0", "1"])
    assert not fused_lora.register(config, model)
    assert fused_lora.fused_layers(get_peft_model(model, config)) == (0, 2)


def test_attention_across_two_texts_shares_nothing() -> None:
    model = nn.Module()
    model.self_attn, model.encoder_attn = Block(bias=False), Block(bias=False)
    config = LoraConfig(r=4, target_modules="all-linear")
    attached = adapted(config, model, is_fused=True, num_layers=14)
    assert attached.base_model.model.self_attn.q_proj.siblings is not None
    assert attached.base_model.model.encoder_attn.q_proj.siblings is None


@pytest.mark.parametrize("is_4bit", [True, False])
def test_packed_bases_keep_their_own_product(is_4bit: bool) -> None:
    bnb = pytest.importorskip("bitsandbytes")

    def packed() -> nn.Module:
        torch.manual_seed(0)
        layer = (
            bnb.nn.Linear4bit(64, 64)
            if is_4bit
            else bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
        )
        model = nn.Sequential(nn.Linear(64, 64), layer)
        model.is_loaded_in_4bit, model.is_loaded_in_8bit = is_4bit, not is_4bit
        return model.to("cpu")

    found = []
    for is_fused in (False, True):
        model = packed()
        config = LoraConfig(r=4, target_modules=["1"], lora_dropout=0.0)
        if is_fused:
            assert fused_lora.register(config, model, BitsAndBytes.lora_layers())
        torch.manual_seed(1)
        model = get_peft_model(model, config)
        layer = model.base_model.model[1]
        torch.manual_seed(2)
        layer.lora_B["default"].weight.data.normal_()
        found.append(gradients(model, torch.linspace(-1, 1, 192).view(3, 64)))
    assert fused_lora.fused_layers(model) == (1, 1)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5, msg=name)
