"""Muon: orthogonalised momentum for a model's matrices, AdamW for everything else."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.optim import AdamW, Optimizer
    from transformers import PreTrainedModel, TrainingArguments

NUM_STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95


def make_muon(model: PreTrainedModel, args: TrainingArguments) -> Optimizer:
    """Make the optimizer: hidden matrices by Muon, embeddings, heads and vectors by AdamW.

    Both take the arguments' learning rate and weight decay (vectors do not decay): Muon's step is
    scaled to the size of AdamW's, as in Liu et al. 2025, arXiv 2502.16982, section 2.2.
    """
    ends = {id(end.weight) for end in _ends(model) if end is not None}
    matrices: list[torch.nn.Parameter] = []
    embeddings: list[torch.nn.Parameter] = []
    vectors: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.ndim != 2:
                vectors.append(parameter)
            else:
                (embeddings if id(parameter) in ends else matrices).append(parameter)
    return _muon_class()(
        [
            {"params": matrices, "is_orthogonal": True, "weight_decay": args.weight_decay},
            {"params": embeddings, "is_orthogonal": False, "weight_decay": args.weight_decay},
            {"params": vectors, "is_orthogonal": False, "weight_decay": 0.0},
        ],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
    )


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring a matrix's singular values near 1 by Newton-Schulz steps, in float32.

    torch.optim.Muon does these steps in bfloat16, which a CPU without bfloat16 units multiplies a
    hundred times more slowly than float32.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(NUM_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def _ends(model: PreTrainedModel) -> tuple[torch.nn.Module | None, torch.nn.Module | None]:
    return model.get_input_embeddings(), model.get_output_embeddings()


@cache
def _muon_class() -> type[AdamW]:
    """Extend AdamW, imported only when asked for, by groups whose step is orthogonal."""
    import torch

    class Muon(torch.optim.AdamW):
        """Step groups marked `is_orthogonal` by Muon and the others by AdamW."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """Take one step; the matrices' gradients are gone after it."""
            for group in self.param_groups:
                if group["is_orthogonal"]:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            self._step_matrix(parameter, parameter.grad, group)
                            parameter.grad = None  # AdamW passes over what has no gradient
            return super().step(closure)

        def _step_matrix(
            self, weight: torch.nn.Parameter, gradient: Tensor, group: dict[str, Any]
        ) -> None:
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
                state["step"] = torch.zeros(())  # AdamW looks for it when a state is loaded
            momentum = state["momentum"]
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = orthogonalize(gradient.lerp(momentum, MOMENTUM))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            scale = 0.2 * math.sqrt(max(weight.shape))
            weight.add_(update, alpha=-group["lr"] * scale)

    return Muon
