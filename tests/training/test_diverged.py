"""Weights that are no numbers, or compute none, are told from those that do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from peftkit.training.diverged import find_broken


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "hold NaN or infinity after it"),
        (1e30, "what the model computes with the weights after it is no number"),
        (0.1, None),
    ],
)
def test_what_is_broken(tiny_model: Path, value: float, said: str | None) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).train()
    torch.nn.init.constant_(model.model.layers[1].mlp.up_proj.weight, value)
    torch.nn.init.constant_(model.model.layers[1].mlp.gate_proj.weight, value)
    torch.nn.init.constant_(model.model.layers[1].mlp.down_proj.weight, value)
    found = find_broken(model)
    assert (found is None) if said is None else str(found).endswith(said)
    assert model.training


def test_a_model_that_takes_no_tokens_is_judged_by_its_weights_alone() -> None:
    assert find_broken(torch.nn.Linear(2, 2)) is None
