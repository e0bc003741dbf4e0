"""An adapted linear layer's forward and backward in one step: `y = x W' + b + s (x A') B'`.

What PEFT computes by six operators, each of which writes a tensor as large as the output and leaves
it for the backward, is here two products that add in place; kept are the input, which the layers
around it keep as well, and the small product `x A'`. Layers that read one input (queries, keys and
values; gate and up) share the product with their A matrices and the gradient of that input.
The formulas are those of LoRA (arXiv 2106.09685, section 4.1) and DoRA (arXiv 2402.09353, equation
5, with the norm taken as a constant, section 4.3).

Imported once torch is needed: it subclasses autograd functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch


class Factors(NamedTuple):
    """What adapts one linear layer."""

    weight: torch.Tensor
    """Outputs x inputs, not trained."""
    bias: torch.Tensor | None
    down: torch.Tensor
    """A: rank x inputs."""
    up: torch.Tensor
    """B: outputs x rank."""
    scale: float
    magnitude: torch.Tensor | None = None
    """DoRA's trained length of each output's weights; None in LoRA."""


@dataclass(frozen=True)
class Shared:
    """Say how the flat tensors of several layers are to be read."""

    scales: tuple[float, ...]
    dtype: torch.dtype
    """What everything is computed in."""
    dropout: float = 0.0


NUM_TENSORS = 5
"""Of each layer: weight, bias, A, B, magnitude."""


def adapted(x: torch.Tensor, layers: Sequence[Factors], *, dropout: float = 0.0) -> Sequence[Any]:
    """Return the outputs of adapted layers that read the same input.

    Args:
        x: ... x inputs.
        dropout: share of what the adapters read that is dropped; the same for all of them, drawn
            once for each.
    """
    device = x.device.type
    has_autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if has_autocast else layers[0].weight.dtype
    shared = Shared(tuple(one.scale for one in layers), dtype, dropout)
    flat = [tensor for one in layers for tensor in (*one[:4], one.magnitude)]
    outputs = _Adapted.apply(x, shared, *flat)  # type: ignore[no-untyped-call]
    # Views are made out here: models may write into an output, not into a view made by autograd.
    return [y.view(*x.shape[:-1], y.shape[-1]) for y in outputs]


class _Adapted(torch.autograd.Function):
    """Compute layers that read one input together, and their gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shared: Shared, *flat: Any) -> Any:
        """Return each layer's output."""
        ctx.set_materialize_grads(False)
        ctx.device = x.device.type
        with torch.autocast(ctx.device, enabled=False):
            return _forward(ctx, x, shared, flat)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of the input and of what is trained."""
        with torch.autocast(ctx.device, enabled=False):
            return _backward(ctx, grads)


def _forward(ctx: Any, x: torch.Tensor, shared: Shared, flat: Sequence[Any]) -> Any:
    layers = _by_layer(flat, shared)
    rows = x.reshape(-1, x.shape[-1]).to(shared.dtype)
    read, mask = _dropped(rows, shared.dropout)
    low = small_product(read, torch.cat([one.down for one in layers]))
    outputs, kept = [], []
    for layer, own in zip(layers, _columns(layers), strict=True):
        weight = layer.weight.to(shared.dtype)
        y = torch.mm(rows, weight.t())
        y.addmm_(low[:, own].to(y.dtype), layer.up.to(y.dtype).t(), alpha=layer.scale)
        if layer.magnitude is not None:
            norm = weight_norm(weight, layer.down, layer.up, layer.scale)
            kept += [y, norm]
            y = y * (layer.magnitude / norm).to(y.dtype)
        if layer.bias is not None:
            y += layer.bias.to(y.dtype)
        outputs.append(y)
    ctx.save_for_backward(rows, mask, low, *kept, *flat)
    ctx.shared, ctx.x_shape, ctx.x_dtype, ctx.num_kept = shared, x.shape, x.dtype, len(kept)
    return tuple(outputs)


def _backward(ctx: Any, grads: Sequence[Any]) -> Any:
    rows, mask, low, *rest = ctx.saved_tensors
    kept, layers = list(rest[: ctx.num_kept]), _by_layer(rest[ctx.num_kept :], ctx.shared)
    grad_low = torch.zeros_like(low) if None in grads else torch.empty_like(low)
    grad_x: torch.Tensor | None = None
    found: list[list[torch.Tensor | None]] = []
    for index, (layer, own) in enumerate(zip(layers, _columns(layers), strict=True)):
        is_dora = layer.magnitude is not None
        before = (kept.pop(0), kept.pop(0)) if is_dora else None
        if grads[index] is None:
            found.append([None] * NUM_TENSORS)
            continue
        grad = grads[index].reshape(-1, grads[index].shape[-1])
        of_bias = None
        if layer.bias is not None and ctx.needs_input_grad[2 + NUM_TENSORS * index + 1]:
            of_bias = grad.sum(dim=0).to(layer.bias.dtype)
        of_magnitude, grad = _through_magnitude(grad, layer.magnitude, before)
        of_up = small_product(grad.t(), low[:, own].t()).mul_(layer.scale).to(layer.up.dtype)
        torch.mul(small_product(grad, layer.up.t()), layer.scale, out=grad_low[:, own])
        if ctx.needs_input_grad[0]:
            weight = layer.weight.to(grad.dtype)
            grad_x = torch.mm(grad, weight) if grad_x is None else grad_x.addmm_(grad, weight)
        found.append([None, of_bias, None, of_up, of_magnitude])
    of_down = small_product((rows if mask is None else rows * mask).t(), grad_low.t()).t()
    for of_layer, layer, own in zip(found, layers, _columns(layers), strict=True):
        of_layer[2] = of_down[own].to(layer.down.dtype)
    if grad_x is not None:
        _add_through_adapters(grad_x, grad_low, torch.cat([one.down for one in layers]), mask)
        grad_x = grad_x.view(ctx.x_shape).to(ctx.x_dtype)
    return (grad_x, None, *(one for of_layer in found for one in of_layer))


def _by_layer(flat: Sequence[Any], shared: Shared) -> list[Factors]:
    layers = zip(*(flat[at::NUM_TENSORS] for at in range(NUM_TENSORS)), shared.scales, strict=True)
    return [
        Factors(weight, bias, down, up, scale, magnitude)
        for weight, bias, down, up, magnitude, scale in layers
    ]


def _columns(layers: Sequence[Factors]) -> list[slice]:
    """Return which columns of the small product are each layer's."""
    ends = list(accumulate((one.down.shape[0] for one in layers), initial=0))
    return [slice(start, end) for start, end in pairwise(ends)]


def _through_magnitude(
    grad: torch.Tensor, magnitude: torch.Tensor | None, before: Any
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return DoRA's gradient of its magnitude, and that of what it is multiplied with."""
    if magnitude is None:
        return None, grad
    output, norm = before
    of_magnitude = ((grad * output).sum(dim=0) / norm).to(magnitude.dtype)
    return of_magnitude, grad * (magnitude / norm).to(grad.dtype)


def _add_through_adapters(
    grad_x: torch.Tensor, grad_low: torch.Tensor, down: torch.Tensor, mask: torch.Tensor | None
) -> None:
    """Add what comes back through the A matrices."""
    low, down = grad_low.to(grad_x.dtype), down.to(grad_x.dtype)
    if mask is None:
        grad_x.addmm_(low, down)
    else:
        grad_x.addcmul_(torch.mm(low, down), mask)


def with_delta(
    y: torch.Tensor, x: torch.Tensor, factors: Factors, *, dropout: float = 0.0
) -> torch.Tensor:
    """Return what a base layer of any kind gave, with an adapter's part added.

    Args:
        y: the base layer's output, in whose dtype the result is.
        factors: its weight is not read.
    """
    found: torch.Tensor = _Delta.apply(  # type: ignore[no-untyped-call]
        y, x, factors.down, factors.up, factors.scale, dropout
    )
    return found


class _Delta(torch.autograd.Function):
    """The same for a base layer that multiplies by itself, since its weights are packed."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd passes them so
        ctx: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        """Return the sum."""
        with torch.autocast(y.device.type, enabled=False):
            rows = x.reshape(-1, x.shape[-1])
            read, mask = _dropped(rows, dropout)
            low = small_product(read, down)
            flat = y.reshape(-1, y.shape[-1])
            found = torch.addmm(flat, low.to(y.dtype), up.to(y.dtype).t(), alpha=scale)
        ctx.save_for_backward(rows, mask, low, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return found.view(y.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """Return the gradients of both inputs and of what is trained."""
        rows, mask, low, down, up = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            flat = grad.reshape(-1, grad.shape[-1])
            of_up = small_product(flat.t(), low.t()).mul_(ctx.scale).to(up.dtype)
            grad_low = small_product(flat, up.t()).mul_(ctx.scale)
            read = rows if mask is None else rows * mask
            of_down = small_product(read.t(), grad_low.t()).t().to(down.dtype)
            grad_x = None
            if ctx.needs_input_grad[1]:
                grad_x = torch.mm(grad_low.to(rows.dtype), down.to(rows.dtype))
                grad_x = grad_x if mask is None else grad_x.mul_(mask)
                grad_x = grad_x.view(ctx.shape)
        return grad, grad_x, of_down, of_up, None, None


def _dropped(rows: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the adapter reads, and what it was multiplied by; drawn as nn.Dropout does."""
    if not share:
        return rows, None
    mask = torch.empty_like(rows).bernoulli_(1 - share).div_(1 - share)
    return rows * mask, mask


def small_product(left: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return `left @ factor.t()`, where the factor has few rows, in float32 at least.

    The few are the rows of the product, not its columns: on a CPU, where they are not, it takes up
    to nine times as long.
    """
    if left.dtype == factor.dtype and left.dtype in (torch.float32, torch.float64):
        return torch.mm(factor, left.t()).t()
    found: torch.Tensor = torch.ops.peftkit.small_product(left, factor)
    return found


@torch.library.custom_op("peftkit::small_product", mutates_args=())
def _small_product(left: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply numbers of few digits, without a float32 copy of `left` on an accelerator.

    A factor of more digits than `left` is split into two parts of `left`'s dtype, which together
    have them; products of two such numbers are exact in float32, which is what is summed in.
    """
    if not left.is_cuda:
        return torch.mm(factor.float(), left.t().float()).t()
    high = factor.to(left.dtype)
    found: torch.Tensor = torch.mm(left, high.t(), out_dtype=torch.float32)
    if factor.dtype != left.dtype:
        rest = (factor - high).to(left.dtype)
        found += torch.mm(left, rest.t(), out_dtype=torch.float32)
    return found


@_small_product.register_fake
def _(left: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return left.new_empty((factor.shape[0], left.shape[0]), dtype=torch.float32).t()


def weight_norm(
    weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return the length of each output's weights in `W + s B A`, which is never made.

    `|w + s b A|^2 = |w|^2 + 2 s b (w A')' + s^2 b (A A') b'`, each output's w and b.
    """
    down, up = down.float(), up.float()
    cross = small_product(weight, down)
    squares = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
    squares += 2 * scale * (cross * up).sum(dim=1)
    squares += scale**2 * (up.mm(down.mm(down.t())) * up).sum(dim=1)
    length: torch.Tensor = squares.clamp_(min=0).sqrt_()
    return length
