"""AdaMSS's subspaces are really switched off, and what decides it comes back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from peftkit.adapters.adamss_schedule import subspace_schedule
from peftkit.adapters.peft_types import Adamss

IDS = torch.arange(10, 26).unsqueeze(0)


@pytest.fixture
def make(tiny_model: Path):
    from peft import AdamssConfig
    from transformers import AutoModelForCausalLM

    def make():
        config = AdamssConfig(
            use_asa=True, init_warmup=0, final_warmup=4, mask_interval=2, asa_target_subspaces=4,
            num_subspaces=3, r=8, subspace_rank=1, target_modules=["q_proj", "v_proj"],
        )  # fmt: skip
        torch.manual_seed(0)
        return Adamss(config).attach(AutoModelForCausalLM.from_pretrained(tiny_model))

    return make


def take_steps(model, schedule, steps: range) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in steps:
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS.clone()).loss.backward()
        optimizer.step()
        schedule.on_optimizer_step(None, SimpleNamespace(global_step=step), None, model=model)


def switched_off(model) -> set[str]:
    return {n for n, p in model.named_parameters() if "adamss_" in n and not p.requires_grad}


def averages(model) -> dict[str, torch.Tensor | None]:
    """Name every average that decides which subspaces stay."""
    return {
        f"{name}.{key}.{at}": tensor
        for name, module in model.named_modules()
        for key in ("exp_avg_ipt_A", "exp_avg_ipt_B", "exp_avg_unc_A", "exp_avg_unc_B")
        for at, tensor in enumerate(getattr(module, key, {}).get("default", ()))
    }


def test_subspaces_and_averages_come_back(make, tmp_path: Path) -> None:
    args = SimpleNamespace(output_dir=str(tmp_path))
    one, schedule = make(), subspace_schedule()
    assert switched_off(one) == set()
    take_steps(one, schedule, range(4))  # masks at 0 and 2; 3 fills the averages anew
    assert switched_off(one)
    (tmp_path / "checkpoint-4").mkdir()
    at = SimpleNamespace(global_step=4, is_world_process_zero=True)
    schedule.on_save(args, at, None, model=one)
    (tmp_path / "checkpoint-4").rename(tmp_path / "step-4")

    other, again = make(), subspace_schedule()
    assert any(tensor is not None for tensor in averages(one).values())
    again.on_train_begin(args, at, None, model=other)
    assert switched_off(other) == switched_off(one)
    assert averages(other).keys() == averages(one).keys()
    for name, value in averages(one).items():
        there = averages(other)[name]
        assert (value is None) == (there is None)
        assert value is None or torch.equal(value, there)
