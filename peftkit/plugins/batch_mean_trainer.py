"""A Trainer whose accumulated step is the mean of its batches' losses, whatever the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import Seq2SeqTrainer, Trainer

if TYPE_CHECKING:
    import torch

    from peftkit.plugins.losses import Loss


class BatchMeanTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped
    """Compute the loss batch by batch.

    transformers takes a model whose forward has further keywords for one that divides its loss by
    the items of the whole step; heads of labels, numbers, spans and masked words and most
    encoder-decoders do not, and their gradients would be as many times too large as batches are
    accumulated.
    """

    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, loss_of_batch: Loss | None = None, **native: Any) -> None:
        super().__init__(*args, **native)
        self._loss_of_batch = loss_of_batch
        """None for the model's own, or its smoothed one."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of a batch, whatever else the step holds."""
        del num_items_in_batch
        if self._loss_of_batch is None:
            return super().compute_loss(model, inputs, return_outputs)
        loss = self._loss_of_batch(model, inputs)
        return (loss, {"loss": loss}) if return_outputs else loss


class Seq2SeqBatchMeanTrainer(BatchMeanTrainer, Seq2SeqTrainer):  # type: ignore[misc] # untyped
    """Do so for encoder-decoders: T5 and BART leave the step's items unread, newer ones do not."""
