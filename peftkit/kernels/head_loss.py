"""Cross entropy of a language model's head over chosen positions, without keeping any logits.

Logits are made in chunks of positions; while a chunk's are there, its share of the gradient is
made of them too, so that the backward only scales it. Three matrix products a chunk, where making
the logits again would take four. The idea is that of Hsu et al., "Liger Kernel" (arXiv 2410.10989,
section 3.2, FusedLinearCrossEntropy).

Imported once torch is needed: it subclasses autograd functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

NUM_LOGITS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits of a chunk: about a cache's worth on a CPU, enough to fill an accelerator."""


@dataclass(frozen=True)
class HeadScoring:
    """Say how a model makes its logits, and what is computed of them."""

    logit_scale: float = 1.0
    """What the head's product is multiplied by."""
    softcap: float | None = None
    """The architecture's `final_logit_softcapping`."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over the vocabulary, as transformers' LabelSmoother."""
    is_dft: bool = False
    """Whether a token's loss is weighed by its probability (trl's `loss_type: dft`)."""
    num_logits: int | None = None
    """Of a chunk; what suits the device when absent."""
    has_two_chunks: bool = False
    """Whether two chunks stand for all, the second one perhaps empty; only a fake run says so."""


def head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    scoring: HeadScoring,
) -> torch.Tensor:
    """Return the summed loss of positions, in float32.

    Args:
        hidden: positions x width, what the head reads.
        weight: vocabulary x width.
        bias: vocabulary, or None.
        targets: the token that each position should predict.
    """
    keeps_gradient = torch.is_grad_enabled()
    loss: torch.Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call] # torch is
        hidden, weight, bias, targets, scoring, keeps_gradient
    )
    return loss


class _HeadLoss(torch.autograd.Function):
    """Sum the loss over chunks; its gradients are ready when it returns."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd passes them so
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        scoring: HeadScoring,
        keeps_gradient: bool,
    ) -> torch.Tensor:
        """Return the sum; keep the gradients that it has."""
        dtype = _compute_dtype(hidden)
        cast = weight.to(dtype)
        sums = [
            _zeros_like(tensor, is_sum=tensor is not hidden) if keeps_gradient and needed else None
            for tensor, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        ]
        total = hidden.new_zeros((), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in _chunks(hidden.shape[0], weight.shape[0], hidden.device.type, scoring):
                chunk = hidden[rows].to(dtype)
                logits = torch.mm(chunk, cast.t()).float()
                if bias is not None:
                    logits += bias
                losses, slopes = _score(logits, targets[rows], scoring, any_needed(sums))
                total += losses.sum()
                if slopes is not None:
                    _add_gradients(sums, slopes.to(dtype), cast, chunk, rows)
        ctx.save_for_backward(*sums)
        ctx.dtypes = [None if t is None else t.dtype for t in (hidden, weight, bias)]
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """Scale the gradients."""
        found = []
        for total, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True):
            found.append(None if total is None else (total * grad).to(dtype))
        return (*found, None, None, None)


def any_needed(sums: list[torch.Tensor | None]) -> bool:
    """Tell whether any gradient is asked for."""
    return any(total is not None for total in sums)


def chunk_size(vocabulary: int, num_logits: int) -> int:
    """Return the positions that are scored at once."""
    return max(1, num_logits // vocabulary)


def _chunks(num: int, vocabulary: int, device: str, scoring: HeadScoring) -> Iterator[slice]:
    num_logits = scoring.num_logits or NUM_LOGITS.get(device, NUM_LOGITS["cuda"])
    size = chunk_size(vocabulary, num_logits)
    for start in (0, size) if scoring.has_two_chunks else range(0, num, size):
        yield slice(min(start, num), min(start + size, num))


def bent(product: torch.Tensor, scoring: HeadScoring) -> torch.Tensor:
    """Return the logits that a model makes of its head's product, written over it."""
    if scoring.logit_scale != 1.0:
        product.mul_(scoring.logit_scale)
    if scoring.softcap is not None:
        product.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
    return product


def _score(
    logits: torch.Tensor,
    targets: torch.Tensor,
    scoring: HeadScoring,
    needs_slopes: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return each position's loss, and its slope in the head's product, written over `logits`."""
    logits = bent(logits, scoring)
    at = targets[:, None]
    normalizer = logits.logsumexp(dim=1)
    nll = normalizer - logits.gather(1, at)[:, 0]
    smoothing = scoring.label_smoothing
    weights = (-nll).exp() if scoring.is_dft else None
    losses = nll if weights is None else nll * weights
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * (normalizer - logits.mean(dim=1))
    if not needs_slopes:
        return losses, None
    # The cap's own slope, 1 - tanh², of what the cap has made of the product.
    within = None if scoring.softcap is None else 1 - (logits / scoring.softcap).square_()
    slopes = logits.sub_(normalizer[:, None]).exp_()
    if smoothing:
        slopes -= smoothing / slopes.shape[1]
    slopes.scatter_add_(1, at, slopes.new_full((), smoothing - 1).expand_as(at))
    if weights is not None:
        slopes *= weights[:, None]
    if within is not None:
        slopes *= within
    if scoring.logit_scale != 1.0:
        slopes *= scoring.logit_scale
    return losses, slopes


def _add_gradients(
    sums: list[torch.Tensor | None],
    slopes: torch.Tensor,
    weight: torch.Tensor,
    chunk: torch.Tensor,
    rows: slice,
) -> None:
    of_hidden, of_weight, of_bias = sums
    if of_hidden is not None:
        torch.mm(slopes, weight, out=of_hidden[rows]) if of_hidden.dtype == slopes.dtype else (
            of_hidden[rows].copy_(torch.mm(slopes, weight))
        )
    if of_weight is not None:
        of_weight.add_(torch.mm(slopes.t(), chunk))
    if of_bias is not None:
        of_bias += slopes.sum(dim=0, dtype=torch.float32)


def _zeros_like(tensor: torch.Tensor | None, *, is_sum: bool) -> torch.Tensor | None:
    """Make what a gradient is gathered in: over chunks in float32."""
    if tensor is None:
        return None
    return torch.zeros_like(tensor, dtype=torch.float32 if is_sum else tensor.dtype)


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype
