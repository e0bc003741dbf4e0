"""The mean loss of a batch's trained positions, which makes no logits for any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.plugins.last_block import last_block_at
from peftkit.plugins.native import native_model
from peftkit.plugins.rows import IGNORED

if TYPE_CHECKING:
    import torch

    from peftkit.kernels.head_loss import HeadScoring

    Positions = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def trained_positions(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which positions of a batch, counted row by row, predict a label, and which label."""
    rows, columns = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return rows * labels.shape[1] + columns, labels[rows, columns + 1]


@dataclass(frozen=True)
class TrainedLoss:
    """Compute the mean loss of a batch's trained positions."""

    scoring: HeadScoring
    positions: Positions = field(default=trained_positions)
    """From labels; a fake run, whose labels have no values, has its own."""

    def __call__(
        self,
        model: torch.nn.Module,
        batch: Mapping[str, Any],
        *,
        native: Any | None = None,
        num_items: Any | None = None,
        balance: float = 0.0,
    ) -> torch.Tensor:
        """Return the loss.

        Args:
            native: the transformers model inside, where `model` is wrapped by more than an adapter.
            num_items: what the sum is divided by; the batch's own trained positions when absent.
            balance: what the loss that balances experts weighs, which the model then computes.
        """
        from peftkit.kernels.head_loss import head_loss

        native = native_model(model) if native is None else native
        chosen, targets, outputs = self._read(model, native, batch)
        total = head_loss(chosen, *head_of(native), targets, self.scoring)
        num = len(targets) if num_items is None else num_items
        loss = total / (num.clamp(min=1) if hasattr(num, "clamp") else max(num, 1))
        return loss + balance * outputs.aux_loss if balance else loss

    def read(
        self, model: Any, native: Any, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the head would read at trained positions, and the labels there."""
        return self._read(model, native, batch)[:2]

    def _read(
        self, model: Any, native: Any, batch: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        at, targets = self.positions(batch["labels"])
        with last_block_at(native, at, batch["labels"].shape):
            hidden, outputs = hidden_states(model, native, batch)
        return hidden.reshape(-1, hidden.shape[-1]).index_select(0, at), targets, outputs


def head_of(native: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a head's weight and bias; PEFT's wrapper of trained rows merges them, and has none."""
    head = native.get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def hidden_states(model: Any, native: Any, batch: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return what a model's head would read, and what else the model gave.

    The whole model runs, its head over no position.
    """
    import torch

    inputs = {name: value for name, value in batch.items() if name != "labels"}
    kept: list[torch.Tensor] = []
    decoder = native.get_decoder()
    body = native.base_model if decoder is native else decoder
    hook = body.register_forward_hook(
        lambda _module, _args, outputs: kept.append(outputs.last_hidden_state)
    )
    none = torch.empty(0, dtype=torch.int64, device=inputs["input_ids"].device)
    try:
        outputs = model(**{**inputs, "use_cache": False, "logits_to_keep": none})
    finally:
        hook.remove()
    return kept[0], outputs
