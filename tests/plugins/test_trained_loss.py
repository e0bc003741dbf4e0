"""The loss of trained positions against the one that a model computes of all its logits."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("num_prompt", [2, 9], ids=["most are trained", "few are"])
@pytest.mark.parametrize("num_items", [None, torch.tensor(40), 40])
def test_it_is_the_models_own_loss(model, num_items, num_prompt: int) -> None:
    batch = real_step.token_batch(3, 12, padded=True)
    batch["labels"][:, :num_prompt] = -100
    loss = TrainedLoss(HeadScoring())(model, batch, num_items=num_items)
    theirs = model(**batch, num_items_in_batch=num_items).loss
    torch.testing.assert_close(loss, theirs, rtol=1e-6, atol=1e-6)
    wanted = torch.autograd.grad(theirs, list(model.parameters()))
    found = torch.autograd.grad(loss, list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-7)


def test_a_batch_without_a_label_has_no_loss(model) -> None:
    batch = real_step.token_batch(2, 6)
    batch["labels"][:] = -100
    loss = TrainedLoss(HeadScoring())(model, batch)
    assert loss.item() == 0
    loss.backward()
    model.zero_grad()


@pytest.mark.parametrize(
    ("num_prompt", "changes", "num_computed"),
    [
        (9, {}, 6),
        (2, {}, 24),  # most are trained
        (9, {"model_type": "mixtral", "num_local_experts": 2}, 24),
    ],
)
def test_the_last_block_computes_what_is_read_of_it(
    num_prompt: int, changes: dict[str, Any], num_computed: int
) -> None:
    values = {**real_step.LLAMA, "num_hidden_layers": 2, **changes}
    made = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(values.pop("model_type"), **values)
    ).train()
    seen: list[int] = []
    for block in made.model.layers:
        block.mlp.register_forward_hook(lambda _m, args, _y: seen.append(args[0][..., 0].numel()))
    batch = real_step.token_batch(2, 12)
    batch["labels"][:, :num_prompt] = -100
    TrainedLoss(HeadScoring())(made, batch).backward()
    assert seen == [24, num_computed]
    if num_computed < 24:
        seen.clear()
        made.activation_checkpointing_enable()
        TrainedLoss(HeadScoring())(made, batch).backward()
        assert set(seen) == {24}, "the block is computed again when its positions are forgotten"
        assert len(made.model.layers[-1].mlp._forward_hooks) == 1
