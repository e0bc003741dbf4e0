"""Optimizers: every name that transformers has is known, and what one lacks is said at check."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest
from transformers.training_args import OptimizerNames

from peftkit.recipe.optimizers import PACKAGES, optimizer
from peftkit.recipe.schema import Choice
from peftkit.recipe.stated import Stated

NAMES = sorted(kind.value for kind in OptimizerNames)


def found(**options: Any) -> list[tuple[str, str, str | None]]:
    method = Choice("sft", options)
    return list(optimizer(Stated(None, None, None, method, None, False, None)))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", NAMES)
def test_every_name_steps_or_is_refused(name: str, tmp_path) -> None:
    """transformers itself makes each one, or says that it cannot, as the rule said before."""
    import torch
    from transformers import Trainer, TrainingArguments

    is_projected = name.startswith(("galore_", "apollo_"))
    options = {"optim_target_modules": ["0"]} if is_projected else {}
    arguments = TrainingArguments(str(tmp_path), optim=name, use_cpu=True, **options)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    if found(optim=name, **options):
        with pytest.raises((ImportError, ValueError)):
            Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        return
    cls, keywords = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    optimizer = cls(model.parameters(), **keywords)
    if PACKAGES.get(name, ("", ""))[0] == "torchao":
        return  # its step is compiled, which takes a compiler and a minute
    before = model[0].weight.detach().clone()
    model(torch.ones(2, 64)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)


def test_every_package_is_of_a_name() -> None:
    assert set(PACKAGES) <= set(NAMES)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_package_is_named_with_its_line(name: str, monkeypatch) -> None:
    package, install = PACKAGES[name]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(
        "peftkit.recipe.optimizers.find_spec", lambda n: None if n == package else find_spec(n)
    )
    (first, *_) = found(optim=name, optim_target_modules="all-linear")
    assert first == (
        "method.sft.optim", f"{name} needs the package {package}, which is missing", install,
    )  # fmt: skip


def test_projections_need_modules_and_layerwise_ones_no_accumulation(monkeypatch) -> None:
    monkeypatch.setattr("peftkit.recipe.optimizers.find_spec", lambda _: object())
    assert found(optim="apollo_adamw", optim_target_modules="all-linear") == []
    assert [key for key, *_ in found(optim="galore_adamw")] == ["method.sft.optim"]
    (problem,) = found(
        optim="galore_adamw_layerwise", optim_target_modules=["q_proj"],
        gradient_accumulation_steps=4,
    )  # fmt: skip
    assert problem[0] == "method.sft.gradient_accumulation_steps"
    assert problem[2] == "write 1, or optim: galore_adamw"
