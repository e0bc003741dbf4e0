"""Experts: lora_A has the expert slowest, lora_B has it fastest, and E is not r."""

from __future__ import annotations

import json

import merge_combinations
import merge_fixture
import numpy as np
import pytest
from safetensors.torch import load_file

from peftkit.errors import ArtefactError
from peftkit.merging.adapter import open_adapter
from peftkit.merging.folder import model_config
from peftkit.merging.weights_io import open_checkpoint

pytestmark = [pytest.mark.filterwarnings(f"ignore:{n}") for n in merge_fixture.NOTICES]
GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"


@pytest.fixture
def moe(tmp_path):
    base = merge_fixture.make_base("qwen3_moe", tmp_path / "base", dtype="float32")
    config = merge_combinations.lora(target_modules=[], target_parameters=[GATE_UP, DOWN])()
    return base, merge_fixture.make_adapter(base, tmp_path / "adapter", config)


def opened(base, adapter):
    return open_adapter(adapter, open_checkpoint(base), model_config=model_config(base))


def test_each_experts_delta_is_its_own_factors(moe) -> None:
    base, adapter = moe
    found, stored = opened(base, adapter), load_file(adapter / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.mlp.experts.{}lora_{}.weight"
    num, r = 6, 3
    # gate_up_proj is defined first, so that its wrapper is the inner one
    a, b = (stored[key.format("base_layer.", x)].double().numpy() for x in "AB")
    for expert in range(num):
        mine_a, mine_b = a[expert * r : (expert + 1) * r], b[:, expert::num]
        whole = 7 / 3 * (mine_b @ mine_a)
        for name, rows in (("gate_proj", slice(0, 24)), ("up_proj", slice(24, 48))):
            delta = found.delta(f"model.layers.0.mlp.experts.{expert}.{name}.weight")
            assert np.allclose(delta, whole[rows], atol=1e-15)
    a, b = (stored[key.format("", x)].double().numpy() for x in "AB")
    delta = found.delta("model.layers.0.mlp.experts.4.down_proj.weight")
    assert np.allclose(delta, 7 / 3 * (b[:, 4::num] @ a[4 * r : 5 * r]), atol=1e-15)


def test_factors_of_another_number_of_experts_are_refused(moe, tmp_path) -> None:
    _, adapter = moe
    settings = {**merge_fixture.MOE, "num_experts": 4, "head_dim": 8}
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    Qwen3MoeForCausalLM(Qwen3MoeConfig(**settings)).save_pretrained(tmp_path / "fewer")
    with pytest.raises(ArtefactError, match=r"is \[4, 48, 32\] in the base, but lora_A is \[18"):
        opened(tmp_path / "fewer", adapter)


def test_a_parameter_that_is_not_there_is_refused(moe) -> None:
    base, adapter = moe
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_parameters"] = [GATE_UP]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="that the adapter's target_parameters name"):
        opened(base, adapter)
