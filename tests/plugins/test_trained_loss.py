"""The loss of trained positions against the one that a model computes of all its logits."""

from __future__ import annotations

import pytest
import real_step
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from peftkit.kernels.head_loss import HeadScoring
from peftkit.plugins.trained_loss import TrainedLoss, trained_positions


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    values = dict(real_step.LLAMA)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(values.pop("model_type"), **values)
    )


def test_positions_are_those_before_a_label() -> None:
    labels = torch.tensor([[7, 8, -100, 9], [-100, -100, -100, 5]])
    at, targets = trained_positions(labels)
    assert at.tolist() == [0, 2, 6]
    assert targets.tolist() == [8, 9, 5], "the first token of a row is predicted by none"


@pytest.mark.parametrize("num_items", [None, torch.tensor(40), 40])
def test_it_is_the_models_own_loss(model, num_items) -> None:
    batch = real_step.token_batch(3, 12, padded=True)
    batch["labels"][:, :5] = -100
    loss = TrainedLoss(HeadScoring())(model, batch, num_items=num_items)
    theirs = model(**batch, num_items_in_batch=num_items).loss
    torch.testing.assert_close(loss, theirs, rtol=1e-6, atol=1e-6)
    wanted = torch.autograd.grad(theirs, list(model.parameters()))
    found = torch.autograd.grad(loss, list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_a_batch_without_a_label_has_no_loss(model) -> None:
    batch = real_step.token_batch(2, 6)
    batch["labels"][:] = -100
    loss = TrainedLoss(HeadScoring())(model, batch)
    assert loss.item() == 0
    loss.backward()
    model.zero_grad()
