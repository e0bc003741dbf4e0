"""The loss that planning runs of a method, and how it is run where labels have no values."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from peftkit.memory.fake import PlanningError
from peftkit.memory.growth import TILE_TOKENS
from peftkit.plugins.native import native_model
from peftkit.plugins.speed import Way

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from peftkit.plugins.losses import Loss
    from peftkit.plugins.trained_loss import TrainedLoss
    from peftkit.recipe.build import Built


def known_loss(built: Built, config: PretrainedConfig | None = None) -> Loss:
    """Return what a recipe's method computes of a batch, which planning runs.

    Args:
        config: of the model; without, whatever is unknown of every model is said.

    Raises:
        PlanningError: its step cannot be run outside of its trainer.
    """
    method = built.method
    loss = method.loss() if config is None else method.loss_on(config)
    reason = method.unplanned
    if loss is None or reason:
        key = f"method.{built.recipe.method.name}"
        raise PlanningError(
            f"what a step of {key} takes is unknown:"
            f" {reason or 'its loss is computed by its trainer alone'}",
            hint=f"train for one step instead, which says what it took: {key}.max_steps=1",
        )
    return loss


def rehearsed_loss(loss: Any, way: Way, num_scored: int, device: str) -> Loss:
    """Return a loss that can be run on fake labels, and does there what it does on a device.

    Args:
        loss: a `TrainedLoss` where the way scores trained positions.
    """
    if not way.scores_trained:
        return loss  # type: ignore[no-any-return]
    from peftkit.kernels.head_loss import NUM_LOGITS

    scoring = dataclasses.replace(loss.scoring, num_logits=NUM_LOGITS[device], has_two_chunks=True)
    trained: TrainedLoss = loss
    return dataclasses.replace(trained, scoring=scoring, positions=partial(_first, num_scored))


def tile_of(way: Way, model: Any, device: str) -> int:
    """Return how many positions a model's head scores at once."""
    if not way.scores_trained:
        return TILE_TOKENS
    from peftkit.kernels.head_loss import NUM_LOGITS, chunk_size

    vocabulary = native_model(model).get_output_embeddings().weight.shape[0]
    return chunk_size(vocabulary, NUM_LOGITS[device])


def _first(num: int, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the first positions for the trained ones: which they are changes no size."""
    import torch

    return torch.arange(num, device=labels.device), labels.reshape(-1)[:num].clone()
