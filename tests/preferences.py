"""A method that peftkit does not know: two answers a row, a loss and an evaluator of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from peftkit.plugins import CAUSAL_LM, IGNORED, Conversation, Method, column_lengths


class Pairs(Method):
    """Prefer the first half of a batch to the second, by how far either is from the base."""

    Config = "trl:DPOConfig"
    kind = CAUSAL_LM
    examples = (Conversation,)
    num_sequences = 2

    def encode(self, examples: Any, tokenizer: Any) -> Any:
        """Give nothing: a step alone is planned here."""

    def sequences(self, row: Mapping[str, Any]) -> list[Any]:
        """Return the prompt with either answer."""
        ignored = [IGNORED] * len(row["prompt"])
        answers = (row[name] for name in ("chosen", "rejected"))
        return [(row["prompt"] + answer, ignored + answer) for answer in answers]

    def lengths(self, rows: Any) -> list[int]:
        """Return the tokens of each prompt with the longer of its answers."""
        answers = (column_lengths(rows, name) for name in ("chosen", "rejected"))
        longer = map(max, *answers)
        return [a + b for a, b in zip(column_lengths(rows, "prompt"), longer, strict=True)]

    def loss(self) -> Any:
        """Return the loss of arXiv 2305.18290, equation 7."""
        return preference_loss

    def evaluator(self, scoring: Any) -> Any:
        """Give nothing: a step alone is planned here."""


class Unknown(Pairs):
    """A step that only its trainer can do."""

    def loss(self) -> None:
        """Return nothing."""


class Generating(Pairs):
    """A step that generates."""

    unplanned = "it generates inside its step"


def preference_loss(model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """Compare the adapted model with its base, which is the same one without the adapter."""
    labels = batch["labels"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def log_probabilities() -> torch.Tensor:
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        picked = logits.log_softmax(-1).gather(-1, labels[:, 1:, None])
        return picked.squeeze(-1).sum(-1)

    adapted = log_probabilities()
    with torch.no_grad(), model.disable_adapter():
        base = log_probabilities()
    chosen, rejected = (adapted - base).chunk(2)
    return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()


def arguments(**options: Any) -> Any:
    """Make its native arguments, on a CPU."""
    from trl import DPOConfig

    quiet = {"output_dir": "x", "use_cpu": True, "bf16": False, "report_to": "none"}
    return DPOConfig(**{**quiet, "activation_checkpointing": False, **options})
