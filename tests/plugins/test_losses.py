"""The losses outside of a trainer are those that it computes, number by number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    import torch

    ids = torch.tensor([[20, 30, 40, 50], [21, 31, 41, 2]])
    labels = torch.where(torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]]).bool(), ids, -100)
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def model_of(folder: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_plain_loss_is_the_formula(tiny_model: Any, batch: Any, smoothing: float) -> None:
    import torch

    from peftkit.plugins.losses import plain_loss

    model = model_of(tiny_model)
    found = plain_loss(SimpleNamespace(label_smoothing_factor=smoothing))(model, dict(batch))
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1].double()
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), label_smoothing=smoothing
    )
    assert torch.allclose(found.double(), expected, atol=1e-6)
