"""torchao from a recipe: the configs by name, loaded, trained on, undone, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchao.quantization import Int8WeightOnlyConfig, PerGroup, quantize_

from peftkit.adapters.peft_types import Lora
from peftkit.errors import ResourceError, UsageError
from peftkit.models.base import load_base
from peftkit.plugins import CAUSAL_LM
from peftkit.quantizers.torchao import Config, TorchAo
from peftkit.recipe.schema import ModelSection

IDS = torch.arange(10, 34).reshape(2, 12)
GROUPS = {"Int8WeightOnlyConfig": {"granularity": {"PerGroup": {"group_size": 32}}}}


def test_a_weight_is_that_of_torchao_itself() -> None:
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(64, 48, bias=False)
    layer.weight = torch.nn.Parameter(weight.clone())
    quantize_(layer, Int8WeightOnlyConfig(granularity=PerGroup(32), set_inductor_config=False))
    back = TorchAo(Config(quant_type=GROUPS)).there_and_back(weight)
    assert torch.equal(back, layer.weight.dequantize())
    assert not torch.equal(back, weight)


def test_a_base_is_quantized_trained_on_and_undone(tiny_model: Path) -> None:
    from peft import LoraConfig

    section = ModelSection(path=str(tiny_model), dtype="float32")
    base = load_base(section, kind=CAUSAL_LM, quantizer=TorchAo(Config()))
    weight = base.model.layers[0].mlp.up_proj.weight
    assert type(weight).__module__.startswith("torchao.")
    before = weight.dequantize().clone()
    model = Lora(LoraConfig(r=2, target_modules=["up_proj"])).attach(base)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert model.base_model.model.model.layers[0].mlp.up_proj.lora_B.default.weight.grad.any()

    plain = TorchAo(Config()).dequantize(
        load_base(section, kind=CAUSAL_LM, quantizer=TorchAo(Config()))
    )
    assert torch.equal(plain.model.layers[0].mlp.up_proj.weight, before)


@pytest.mark.parametrize(
    ("name", "bits"), [("Int8WeightOnlyConfig", 8), ("Int8DynamicActivationInt4WeightConfig", 4)]
)
def test_bits_are_those_of_the_weight(name: str, bits: int) -> None:
    assert TorchAo(Config(quant_type={name: {}})).bits == bits


def test_wrong_names_and_options_are_refused(monkeypatch) -> None:
    with pytest.raises(UsageError, match="has no 'int8_weight_only'") as caught:
        TorchAo(Config(quant_type={"int8_weight_only": {}})).check(device="cpu")
    assert "Int8WeightOnlyConfig" in caught.value.hint
    with pytest.raises(UsageError, match=r"quant_type\.Int8WeightOnlyConfig: .*bits"):
        TorchAo(Config(quant_type={"Int8WeightOnlyConfig": {"bits": 3}})).check(device="cpu")
    assert TorchAo.conflicts({"quant_type": {}})
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with pytest.raises(ResourceError, match="needs torchao"):
        TorchAo(Config()).check(device="cpu")
