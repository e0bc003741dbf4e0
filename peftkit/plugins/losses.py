"""What trainers of the stack compute as a batch's loss, in functions that need no trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.plugins.native import native_model

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments

    Loss = Callable[[torch.nn.Module, Mapping[str, Any]], torch.Tensor]


def model_loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Return the loss that a transformers model computes from `labels`, as plain Trainer does."""
    loss: torch.Tensor = model(**batch)["loss"]
    return loss


def plain_loss(args: TrainingArguments) -> Loss:
    """Return the loss of plain Trainer: the model's own, or a smoothed one of its logits."""
    if not args.label_smoothing_factor:
        return model_loss
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.trainer_pt_utils import LabelSmoother

    smoother = LabelSmoother(epsilon=args.label_smoothing_factor)

    def smoothed(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        is_causal = type(native_model(model)).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
        loss: torch.Tensor = smoother(outputs, batch["labels"], shift_labels=is_causal)
        return loss

    return smoothed


def weighted_loss(weights: Sequence[float] | None, *, label_smoothing: float = 0.0) -> Loss:
    """Return torch's weighted cross entropy of a classifier's labels, computed in float32.

    Args:
        weights: of each label, by their numbers; all 1 when None.
    """

    def weighted(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        import torch

        outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
        logits = outputs["logits"].float()
        counted = logits.new_tensor(weights or [1.0] * logits.shape[-1])
        return torch.nn.functional.cross_entropy(
            logits, batch["labels"], weight=counted, label_smoothing=label_smoothing
        )

    return weighted


def fused_loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Return trl's loss: log-probabilities in chunks, no logits kept; what SFTTrainer computes."""
    import torch

    outputs = model(**batch, use_cache=False, fused_lm_head=True)
    num_tokens = outputs.label_mask.sum()
    loss: torch.Tensor = (-outputs.log_probs).sum() / torch.as_tensor(num_tokens).clamp(min=1)
    return loss
