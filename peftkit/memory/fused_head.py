"""trl's fused head and loss for a fake run: its buffers and tiles, two of each loop instead of all.

Imported once planning is sure: it subclasses autograd functions. trl scores tokens in tiles of
4,096 and vocabulary columns in tiles of 32,768. All tiles but the last are alike, so the first two
of each loop have the peak of all, and a trace that does not depend on their number can be replayed
for any batch. Source: trl 1.16, `kernels/chunked_logprob.py` and `trainer/utils.py`
(`add_fused_lm_head`); tests compare with trl's own, run on the CPU.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from peftkit.memory.growth import scored_positions, tile_sizes

TOKEN_TILE: int = chunked_logprob.TOKEN_CHUNK_SIZE
VOCABULARY_TILE: int = trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE


@dataclass(frozen=True)
class Kernel:
    """Say how a device scores a tile."""

    has_triton: bool
    """Whether a kernel folds a tile in place, and only trained positions are scored."""
    softcap: float | None
    """The architecture's `final_logit_softcapping`."""


class FakeChunkedLogProb(torch.autograd.Function):
    """Allocate what `ChunkedLogProbFunction` does, on a device with Triton or without."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd passes them so
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        kernel: Kernel,
    ) -> Any:
        """Score `hidden` (tokens x width) against `weight` (vocabulary x width)."""
        ctx.set_materialize_grads(False)
        device, num = hidden.device, hidden.shape[0]
        dtype = _compute_dtype(hidden)
        statistics = [torch.zeros((num,), device=device) for _ in range(7)]
        buffer = torch.empty((min(num, TOKEN_TILE), VOCABULARY_TILE), device=device, dtype=dtype)
        start = 0
        for rows in tile_sizes(num):
            hidden_chunk = hidden[start : start + rows].to(dtype)
            for first, last in _columns(weight):
                tile = buffer[:rows, : last - first]
                torch.mm(hidden_chunk, weight[first:last].to(dtype).t(), out=tile)
                if bias is not None:
                    tile.add_(bias[first:last].to(dtype))
                if not kernel.has_triton:
                    kept = targets[start : start + rows]
                    _fold_forward(tile, kept, statistics, start, first, kernel.softcap)
            start += rows
        highest, sum_exp, x_sum_exp, _, _, before, target = statistics
        log_z = highest + torch.log(sum_exp)
        logprobs = target - log_z
        entropy = log_z - x_sum_exp / sum_exp
        is_top1 = (target >= highest) & (target > before)
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, entropy)
        ctx.dtype, ctx.kernel = dtype, kernel
        ctx.mark_non_differentiable(is_top1)
        return logprobs, entropy, is_top1

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        """Recompute tile by tile; gradients are summed in float32."""
        hidden, weight, bias, targets, log_z, entropy = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dtype, num = ctx.dtype, hidden.shape[0]
        sums = [
            torch.zeros(x.shape, device=x.device) if x is not None and needed else None
            for x, needed in zip((hidden, weight, bias), needs, strict=False)
        ]
        buffer = torch.empty(
            (min(num, TOKEN_TILE), VOCABULARY_TILE), device=hidden.device, dtype=dtype
        )
        grad = grad.float().contiguous()
        start = 0
        for rows in tile_sizes(num):
            kept = slice(start, start + rows)
            hidden_chunk = hidden[kept].to(dtype)
            for first, last in _columns(weight):
                weight_chunk = weight[first:last].to(dtype)
                tile = buffer[:rows, : last - first]
                torch.mm(hidden_chunk, weight_chunk.t(), out=tile)
                if bias is not None:
                    tile.add_(bias[first:last].to(dtype))
                if not ctx.kernel.has_triton:
                    rest = (targets[kept], log_z[kept], entropy[kept], grad[kept])
                    _fold_backward(tile, *rest, softcap=ctx.kernel.softcap)
                _accumulate(sums, tile, weight_chunk, hidden_chunk, kept, slice(first, last), ctx)
            start += rows
        grads = [
            None if total is None else total.to(x.dtype)
            for total, x in zip(sums, (hidden, weight, bias), strict=True)
        ]
        return (*grads, None, None)


def attach_fused_head(model: Any, *, has_triton: bool, scored_share: float = 1.0) -> None:
    """Give a transformers model the forward that trl gives it, over the fake kernel.

    Args:
        scored_share: of the positions; on a device with Triton only trained ones are scored.
    """
    original = model.forward
    config = model.config.get_text_config()
    kernel = Kernel(has_triton, getattr(config, "final_logit_softcapping", None))

    @functools.wraps(type(model).forward)  # as trl does, for those who ask which options it takes
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(*args, **kwargs)
        labels = kwargs.pop("labels")[:, 1:]
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        mask = labels != -100
        flat = hidden.reshape(-1, hidden.size(-1))
        if has_triton:
            num = scored_positions(mask.numel(), scored_share)
            flat, targets = flat[:num].clone(), labels.reshape(-1)[:num].clone()
        else:
            targets = labels.clamp(min=0).reshape(-1)
        head = self.get_output_embeddings()
        scored = FakeChunkedLogProb.apply(  # type: ignore[no-untyped-call] # torch is
            flat, _gathered(head.weight), _gathered(head.bias), targets, kernel
        )
        if has_triton:
            scored = [x.new_zeros(mask.shape).masked_scatter(mask, x) for x in scored]
        else:
            scored = [x.view(mask.shape).masked_fill(~mask, 0) for x in scored]
        log_probs, entropy, is_top1 = scored
        loss = -log_probs.sum() / mask.sum().clamp(min=1)
        return trl_utils.FusedCausalLMOutput(
            loss=loss, log_probs=log_probs, entropy=entropy, is_top1=is_top1, label_mask=mask
        )

    # As trl does: the model keeps its class, its instance gets another forward.
    model.forward = MethodType(forward, model)


def _gathered(parameter: Any) -> Any:
    """Return a parameter of the head whole: where FSDP2 has it in shards, trl gathers them."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def _compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _columns(weight: torch.Tensor) -> list[tuple[int, int]]:
    """Return the first two tiles of the vocabulary."""
    vocabulary = weight.shape[0]
    starts = [start for start in (0, VOCABULARY_TILE) if start < vocabulary]
    return [(start, min(start + VOCABULARY_TILE, vocabulary)) for start in starts]


def _fold_forward(  # noqa: PLR0913, PLR0917 - what trl's kernel takes
    tile: torch.Tensor,
    targets: torch.Tensor,
    statistics: list[torch.Tensor],
    start: int,
    first: int,
    softcap: float | None,
) -> None:
    highest, sum_exp, x_sum_exp, sq, z_sum, before, target = (
        x[start : start + tile.shape[0]] for x in statistics
    )
    chunked_logprob._forward_tile(
        tile, tile.stride(0), targets, highest, sum_exp, x_sum_exp, sq, z_sum, before, target,
        first, tile.shape[1], 1.0, softcap or 1.0, 1.0, softcap is not None,
        True, False, False, True, 1024,
    )  # fmt: skip


def _fold_backward(  # noqa: PLR0913
    tile: torch.Tensor,
    targets: torch.Tensor,
    log_z: torch.Tensor,
    entropy: torch.Tensor,
    grad: torch.Tensor,
    *,
    softcap: float | None,
) -> None:
    chunked_logprob._backward_tile(
        tile, tile.stride(0), targets, log_z, entropy, grad, log_z,
        0, tile.shape[1], 1.0, softcap or 1.0, 1.0, softcap is not None, True, False, 1024,
    )  # fmt: skip


def _accumulate(  # noqa: PLR0913, PLR0917
    sums: list[torch.Tensor | None],
    tile: torch.Tensor,
    weight_chunk: torch.Tensor,
    hidden_chunk: torch.Tensor,
    rows: slice,
    columns: slice,
    ctx: Any,
) -> None:
    """Add one tile to the gradients; a device with Triton multiplies into float32 in place."""
    grad_hidden, grad_weight, grad_bias = sums
    if grad_hidden is not None and not ctx.kernel.has_triton:
        grad_hidden[rows].addmm_(tile.float(), weight_chunk.float())
    if grad_weight is not None and not ctx.kernel.has_triton:
        grad_weight[columns].addmm_(tile.t().float(), hidden_chunk.float())
    if grad_bias is not None:
        grad_bias[columns] += tile.sum(dim=0, dtype=torch.float32)
