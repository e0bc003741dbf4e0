"""One training step: forward, loss, backward, update. Not a loop, and not a trainer of our own.

The planner runs it on fake tensors, the probe on the longest real batch, benchmarks under a clock;
it does what the method's own trainer does, with that trainer's loss and optimizer, and tells its
caller which phase begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.plugins.native import is_adapted

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

    from peftkit.plugins import Method
    from peftkit.plugins.losses import Loss

    Enter = Callable[[str], None]


@dataclass(frozen=True)
class StepSettings:
    """Hold what a trainer's arguments say about one step."""

    accumulation: int
    """Micro-batches a step."""
    max_grad_norm: float | None
    """None or 0 where gradients are not clipped."""
    autocast: str | None
    """`bfloat16` or `float16` where the forward runs under autocast."""
    device: str

    @classmethod
    def of(cls, args: TrainingArguments, device: str) -> StepSettings:
        """Read the settings off a trainer's arguments."""
        precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
        return cls(args.gradient_accumulation_steps, args.max_grad_norm, precision, device)


def set_checkpointing(model: Any, args: TrainingArguments) -> None:
    """Switch activation checkpointing on or off as transformers' Trainer and trl's do."""
    if not args.activation_checkpointing:
        return
    keywords = dict(args.activation_checkpointing_kwargs or {})
    every_n_layers = keywords.pop("every_n_layers", 1)
    offload = keywords.pop("offload", False)
    if keywords.pop("selective", False):
        from trl.models import enable_selective_activation_checkpointing

        enable_selective_activation_checkpointing(model)
    if is_adapted(model):
        model.enable_input_require_grads()
    model.activation_checkpointing_enable(
        activation_checkpointing_kwargs=keywords or None,
        every_n_layers=every_n_layers,
        offload=offload,
    )


def offloads_checkpoints(args: TrainingArguments) -> bool:
    """Tell whether the inputs of checkpointed layers are kept on the host."""
    keywords = args.activation_checkpointing_kwargs or {}
    return bool(args.activation_checkpointing and keywords.get("offload", False))


def make_optimizer(model: Any, method: Method, **keywords: Any) -> torch.optim.Optimizer:
    """Make the optimizer that the method's trainer makes, in the same two groups.

    Args:
        keywords: native keywords on top, e.g. `foreach=True` where the device's default differs.
    """
    own = method.optimizer(model)
    if own is not None:
        return own
    args = method.config
    from torch import nn
    from transformers import Trainer
    from transformers.trainer_pt_utils import get_parameter_names

    forbidden = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
    decayed = set(get_parameter_names(model, [nn.LayerNorm], forbidden))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in trained if n in decayed], "weight_decay": args.weight_decay},
        {"params": [p for n, p in trained if n not in decayed], "weight_decay": 0.0},
    ]
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    groups = options.pop("params", groups)
    optimizer: torch.optim.Optimizer = optimizer_class(groups, **{**options, **keywords})
    return optimizer


def forward_backward(
    model: Any, batch: Mapping[str, Any], loss_of: Loss, settings: StepSettings, enter: Enter
) -> torch.Tensor:
    """Run one micro-batch: gradients are added to those that are there.

    Args:
        enter: called with `forward` and `backward` as they begin; `loss` begins inside the
            model, where whoever wants to know must listen.
    """
    enter("forward")
    with autocast(settings):
        loss = loss_of(model, batch)
    loss = loss / settings.accumulation
    enter("backward")
    loss.backward()  # type: ignore[no-untyped-call] # torch is
    return loss.detach()


def update(
    parameters: Iterable[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: StepSettings,
    enter: Enter,
) -> None:
    """Clip the gradients, step the optimizer and drop the gradients."""
    import torch

    enter("step")
    if settings.max_grad_norm:
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()


def autocast(settings: StepSettings) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast that accelerate wraps a model's forward in; nothing in full precision."""
    if settings.autocast is None:
        return contextlib.nullcontext()
    import torch

    return torch.autocast(settings.device, dtype=getattr(torch, settings.autocast))
