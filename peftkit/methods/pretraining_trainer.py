"""transformers' Trainer for pretraining an encoder: the same loss, and its parts logged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.plugins.rows import IGNORED

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import Trainer


def parts_of(outputs: Any, inputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what a batch's heads said: name -> logits of what is asked, and its labels."""
    trained = inputs["labels"] != IGNORED
    is_pair = "next_sentence_label" in inputs
    logits = outputs.prediction_logits if is_pair else outputs.logits
    parts = {"mlm": (logits[trained], inputs["labels"][trained])}
    if is_pair:
        parts["nsp"] = (outputs.seq_relationship_logits, inputs["next_sentence_label"])
    return parts


class Tally:
    """Sum up losses and right answers of batches, on the device that computed them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, parts: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add one batch."""
        import torch

        for name, (logits, labels) in parts.items():
            nats = torch.nn.functional.cross_entropy(logits.detach().float(), labels)
            right = (logits.detach().argmax(-1) == labels).sum()
            num = torch.full_like(nats, len(labels))
            found = torch.stack([nats, torch.ones_like(nats), right.to(nats.dtype), num])
            self._sums[name] = self._sums[name] + found if name in self._sums else found

    def take(self, trainer: Trainer) -> dict[str, float]:
        """Return each part's mean loss and accuracy over all processes, and begin anew."""
        found = {}
        for name, sums in self._sums.items():
            nats, batches, right, num = trainer.accelerator.reduce(sums, "sum").tolist()
            found[f"{name}_loss"] = nats / batches
            found[f"{name}_accuracy"] = right / num
        self._sums = {}
        return found


@cache
def trainer_class() -> type[Trainer]:
    """Extend the Trainer of heads, imported only when asked for."""
    from peftkit.plugins.batch_mean_trainer import BatchMeanTrainer

    class PretrainingTrainer(BatchMeanTrainer):
        """Log what masked words and next sentences each cost, and how many were right."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._tallies = {True: Tally(), False: Tally()}

        def compute_loss(
            self,
            model: torch.nn.Module,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            """Compute the model's own loss, the mean of a batch, and look at its parts."""
            del num_items_in_batch
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            self._tallies[model.training].add(parts_of(outputs, inputs))
            return (loss, outputs) if return_outputs else loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            """Add the parts to what is logged."""
            is_training = not any(key.startswith("eval_") for key in logs)
            prefix = "" if is_training else "eval_"
            parts = self._tallies[is_training].take(self)
            logs |= {f"{prefix}{key}": value for key, value in parts.items()}
            super().log(logs, start_time)

    return PretrainingTrainer
