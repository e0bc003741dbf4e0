"""Fine-tune an encoder, or a decoder, to choose labels, through transformers' Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.plugins import (
    LENGTH,
    SEQUENCE_CLASSIFICATION,
    Labeled,
    Method,
    Point,
    Row,
    RowCount,
    Training,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from peftkit.errors import DataError


class Classify(Method):
    """Train a classification head over an encoder or a decoder, and the adapter below it."""

    Config = "peftkit.methods.classify:ClassifyArguments"
    kind = SEQUENCE_CLASSIFICATION
    examples = (Labeled,)

    @property
    def max_length(self) -> int:
        """Return the tokens that a row may have."""
        length: int = self.config.max_length
        return length

    def encode(
        self, examples: Sequence[Labeled], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return texts or pairs, cut as the tokenizer cuts; `length` is what each had."""
        from peftkit.preprocessing.classification_rows import encode_texts

        rows = encode_texts([one.texts for one in examples], tokenizer, self.max_length)
        return [
            [{**row, "labels": example.number}] for row, example in zip(rows, examples, strict=True)
        ]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a row's tokens; its one label is trained."""
        length, kept = int(row[LENGTH]), len(row["input_ids"])
        return RowCount(
            length=length, needed=1, num_tokens=kept, num_trained=1, is_cut=length > kept,
            is_ended=True,
        )  # fmt: skip

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Pad rows to the longest of a batch."""
        from transformers import DataCollatorWithPadding

        return {"data_collator": DataCollatorWithPadding(parts.tokenizer)}

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return tokens, and a label for each row."""
        return {**super().columns(point), "labels": (point.micro_batch,)}


@cache
def _arguments_class() -> type[TrainingArguments]:
    """Extend transformers' TrainingArguments by the length, which it lacks."""
    from transformers import TrainingArguments

    @dataclass
    class ClassifyArguments(TrainingArguments):  # type: ignore[misc]  # transformers is untyped
        """Extend transformers' TrainingArguments by the length of a row."""

        max_length: int = field(
            default=512, metadata={"help": "Tokens that a row may have; the rest is cut."}
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    ClassifyArguments.__qualname__ = "ClassifyArguments"
    return ClassifyArguments


def __getattr__(name: str) -> type[TrainingArguments]:
    """Make `ClassifyArguments` on first use: importing a method must not import transformers."""
    if name == "ClassifyArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
