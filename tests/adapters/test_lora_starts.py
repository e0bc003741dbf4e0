"""Every start of a LoRA is attached to a model, and its base compared before and after."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora.loraga import preprocess_loraga
from transformers import AutoModelForCausalLM

from peftkit.adapters.lora_starts import KEEP_BASE, moved_by
from peftkit.recipe.tables import CORRECTED

STARTS = (True, False, "gaussian", "eva", "olora", "pissa", "pissa_niter_4", "corda",
          "orthogonal", "mica", "lora_ga")  # fmt: skip
IDS = torch.arange(10, 90).reshape(2, 40)


def _config(start: Any) -> peft.LoraConfig:
    own = {
        "loftq": {"loftq_config": peft.LoftQConfig(loftq_bits=4)},
        "eva": {"eva_config": peft.EvaConfig()},
        "lora_ga": {"lora_ga_config": peft.LoraGAConfig()},
    }.get(start, {})
    return peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=start, **own)


def _prepare(model: Any, config: peft.LoraConfig) -> None:
    """Collect what a start takes from data."""
    if config.init_lora_weights == "corda":
        # What peft's own collector leaves at each layer; its module wants a package (attrs) more.
        for name, module in model.named_modules():
            if name.endswith("q_proj"):
                left, values, right = torch.svd_lowrank(module.weight.detach(), q=config.r)
                module.eigens = SimpleNamespace(U_WC=left, S_WC=values, V_WC=right)
    elif config.init_lora_weights == "lora_ga":

        def step() -> None:
            model(IDS, labels=IDS).loss.backward()

        preprocess_loraga(model, config, train_step=step)


def _is_moved(folder: Path, config: peft.LoraConfig) -> bool:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    _prepare(model, config)
    attached = peft.get_peft_model(model, config)
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): weight
        for name, weight in attached.state_dict().items()
        if "lora_" not in name
    }
    assert set(before) <= set(after)
    return any(not torch.equal(weight, after[name]) for name, weight in before.items())


@pytest.mark.parametrize(
    "start", [*STARTS, pytest.param("loftq", marks=pytest.mark.gpu, id="loftq")]
)
@pytest.mark.filterwarnings("ignore")
def test_a_start_moves_the_base_or_keeps_it_as_the_list_says(start: Any, tiny_model: Path) -> None:
    config = _config(start)
    assert _is_moved(tiny_model, config) is (moved_by(config.to_dict()) is not None)


@pytest.mark.filterwarnings("ignore")
def test_kasa_moves_the_base(tiny_model: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], kasa_config=peft.KasaConfig())
    assert _is_moved(tiny_model, config)
    assert moved_by(config.to_dict()) == "kasa_config"


def test_every_start_that_a_recipe_may_name_was_tried() -> None:
    kinds = CORRECTED["LoraConfig", "init_lora_weights"].items
    (named,) = (kind.choices for kind in kinds if kind.name == "choice")
    assert {*named, "pissa_niter_4", True, False} == {*STARTS, "loftq"}
    assert set(KEEP_BASE) - {None} <= set(STARTS)


def test_other_methods_and_unknown_starts() -> None:
    assert moved_by({"peft_type": "IA3"}) is None
    assert moved_by({"init_lora_weights": "of-tomorrow"}) == "init_lora_weights"
