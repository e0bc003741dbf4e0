"""Let a model's head see the masked words alone: of six in seven positions nobody asks for logits.

A batch says under `masked_positions` which they are, so many in each row, and has their labels
only. The loss is the one over all positions, since the others are left out of it anyway; without
`masked_positions` the model is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.plugins.native import native_model
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.masked_words import num_predictions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POSITIONS = "masked_positions"


@dataclass(frozen=True)
class MaskedBatches:
    """Put rows with labels into batches: padded, and the labels of masked words alone."""

    pad_id: int
    mlm_probability: float

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make one batch."""
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        wanted = num_predictions(width, self.mlm_probability)
        places = [[at for at, t in enumerate(row["labels"]) if t != IGNORED] for row in rows]
        labels = [
            [row["labels"][at] for at in found] for row, found in zip(rows, places, strict=True)
        ]
        batch = {
            "input_ids": _padded([row["input_ids"] for row in rows], self.pad_id, width),
            "attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], 0, width),
            POSITIONS: _padded(places, 0, wanted),
            "labels": _padded(labels, IGNORED, wanted),
        }
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = _padded([row["token_type_ids"] for row in rows], 0, width)
            batch["next_sentence_label"] = torch.tensor([r["next_sentence_label"] for r in rows])
        return batch


def _padded(values: Sequence[Sequence[int]], fill: int, width: int) -> Tensor:
    import torch

    return torch.tensor([[*one, *[fill] * (width - len(one))] for one in values])


def score_masked_only(model: torch.nn.Module) -> list[Any]:
    """Make the head of a model, within any adapter, follow `masked_positions`.

    Returns: the hooks' handles, to take them off again.
    """
    native = native_model(model)
    held: dict[str, Tensor | None] = {}

    def take(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        held[POSITIONS] = kwargs.pop(POSITIONS, None)
        return args, kwargs

    def gather(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        positions = held[POSITIONS]
        if positions is None:
            return None
        states, *others = args
        index = positions.unsqueeze(-1).expand(-1, -1, states.shape[-1])
        return (states.gather(1, index), *others)

    return [
        native.register_forward_pre_hook(take, with_kwargs=True),
        _head(native).register_forward_pre_hook(gather),
    ]


def cut_bias_apart(model: torch.nn.Module) -> None:
    """Give the second name of a head's bias, by which no forward reads it, a copy of its own.

    FSDP2 cuts a trained weight that two modules hold only together with both, and BERT's head holds
    its last layer's bias once more. What is saved has the trained one under both names.
    """
    from torch import nn

    native = native_model(model)
    last = native.get_output_embeddings()
    for module in native.modules():
        if module is not last and (own := module._parameters.get("bias")) is last.bias is not None:
            module.bias = nn.Parameter(own.detach().clone(), requires_grad=False)


def _head(native: Any) -> torch.nn.Module:
    """Return what stands between body and logits: the child that holds the output embeddings."""
    last = native.get_output_embeddings()
    name = next(name for name, module in native.named_modules() if module is last)
    head: torch.nn.Module = native.get_submodule(name.partition(".")[0])
    return head


@contextmanager
def scored_masked_only(model: torch.nn.Module) -> Iterator[None]:
    """Do the same for a while, in evaluation mode."""
    was_training = model.training
    handles = score_masked_only(model)
    try:
        model.eval()
        yield
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
