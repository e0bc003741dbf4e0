"""The head's loss over chosen positions against cross entropy in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers.trainer_pt_utils import LabelSmoother

from peftkit.kernels import head_loss as kernel
from peftkit.kernels.head_loss import HeadScoring, head_loss


def reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    scoring: HeadScoring,
) -> torch.Tensor:
    logits = functional.linear(hidden, weight, bias) * scoring.logit_scale
    if scoring.softcap is not None:
        logits = scoring.softcap * torch.tanh(logits / scoring.softcap)
    if scoring.label_smoothing:
        smoother = LabelSmoother(epsilon=scoring.label_smoothing)
        loss: torch.Tensor = smoother({"logits": logits}, targets, num_items_in_batch=1)
        return loss
    nll = functional.cross_entropy(logits, targets, reduction="none")
    return (nll * (-nll).exp().detach() if scoring.is_dft else nll).sum()


@settings(max_examples=40, deadline=None)
@given(
    scoring=st.builds(
        HeadScoring,
        logit_scale=st.sampled_from([1.0, 0.25]),
        softcap=st.sampled_from([None, 3.0]),
        label_smoothing=st.sampled_from([0.0, 0.2]),
    ),
    is_dft=st.booleans(),
    has_bias=st.booleans(),
    trains_head=st.booleans(),
    num=st.integers(0, 11),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_loss_and_gradients_equal_those_of_all_logits(  # noqa: PLR0917
    scoring: HeadScoring,
    is_dft: bool,
    has_bias: bool,
    trains_head: bool,
    num: int,
    dtype: torch.dtype,
) -> None:
    scoring = dataclasses.replace(scoring, is_dft=is_dft and not scoring.label_smoothing)
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(num, 8), torch.randn(21, 8), torch.randn(21)
    targets = torch.randint(0, 21, (num,))
    inputs = [hidden.to(dtype), weight.to(dtype), bias.to(dtype) if has_bias else None]
    exact = [None if x is None else x.double().requires_grad_() for x in inputs]
    expected = reference(*exact, targets, scoring)
    for x, trains in zip(inputs, (True, trains_head, trains_head), strict=True):
        if x is not None:
            x.requires_grad_(trains)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kernel.NUM_LOGITS, "cpu", 21 * 4)  # chunks of four positions
        loss = head_loss(*inputs, targets, scoring)
    (loss * 3).backward()
    (expected * 3).backward()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=tolerance)
    for found, wanted in zip(inputs, exact, strict=True):
        if found is None or not found.requires_grad:
            continue
        scale = float(wanted.grad.abs().max()) if wanted.grad.numel() else 0.0
        torch.testing.assert_close(
            found.grad.double(), wanted.grad, rtol=tolerance, atol=tolerance * max(scale, 1e-3)
        )


def test_nothing_is_kept_for_a_gradient_that_nobody_asks_for() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(21, 8)
    with torch.no_grad():
        loss = head_loss(hidden, weight, None, torch.arange(4), HeadScoring())
    assert not loss.requires_grad
    torch.testing.assert_close(
        loss, functional.cross_entropy(hidden @ weight.t(), torch.arange(4), reduction="sum")
    )


def test_autocast_computes_in_its_dtype() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(21, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head_loss(hidden, weight, None, torch.arange(4), HeadScoring())
    loss.backward()
    logits = hidden.detach().bfloat16() @ weight.bfloat16().t()
    expected = functional.cross_entropy(logits.float(), torch.arange(4), reduction="sum")
    torch.testing.assert_close(loss.detach(), expected)
    assert hidden.grad is not None and hidden.grad.dtype == torch.float32
