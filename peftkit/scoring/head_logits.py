"""Read rows with a model that has a head for whole texts, in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import UsageError
from peftkit.plugins.native import accepted_inputs
from peftkit.scoring.reading import longest_first

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Row

    Model: TypeAlias = PreTrainedModel | PeftModel


def read_heads(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[float]]:
    """Return the logits of each encoded row, in their order; rows of like length share a batch.

    Raises:
        ResourceError: even one row does not fit into device memory.
    """

    def read(chosen: Sequence[int]) -> list[list[float]]:
        logits: list[list[float]] = (
            _logits(model, tokenizer, [rows[i] for i in chosen]).float().tolist()
        )
        return logits

    lengths = [len(row["input_ids"]) for row in rows]
    return longest_first(model, lengths, read, batch_size=batch_size, progress=progress)


def _logits(
    model: Model, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> torch.Tensor:
    taken = accepted_inputs(model)
    columns = [{k: v for k, v in row.items() if k in taken and k != "labels"} for row in rows]
    batch = tokenizer.pad(columns, return_tensors="pt")
    device = model.get_input_embeddings().weight.device
    logits: torch.Tensor = model(**{name: one.to(device) for name, one in batch.items()}).logits
    return logits


def one_each(rows: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the one row of each text.

    Raises:
        UsageError: a text has several, whose labels nobody says how to join.
    """
    if any(len(windows) != 1 for windows in rows):
        raise UsageError(
            "the method makes several rows of a text, and a classifier names one row's label",
            hint="give the method an evaluator and an answerer of its own: docs/plugins.md",
        )
    return [window for (window,) in rows]
