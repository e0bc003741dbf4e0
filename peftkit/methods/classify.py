"""Fine-tune an encoder, or a decoder, to choose labels, through transformers' Trainer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from peftkit.errors import DataError
from peftkit.plugins import (
    LENGTH,
    SEQUENCE_CLASSIFICATION,
    Judged,
    Labeled,
    Method,
    Point,
    Rated,
    Row,
    RowCount,
    Training,
)
from peftkit.plugins.losses import plain_loss, weighted_loss
from peftkit.plugins.native import native_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from peftkit.plugins.losses import Loss

BALANCED = "balanced"


class Classify(Method):
    """Train a head over an encoder or a decoder, and the adapter below it.

    It names a label of a text or a pair, or predicts a number of it, as the task says.
    """

    Config = "peftkit.methods.classify:ClassifyArguments"
    kind = SEQUENCE_CLASSIFICATION
    examples = (Labeled, Rated)

    @property
    def max_length(self) -> int:
        """Return the tokens that a row may have."""
        length: int = self.config.max_length
        return length

    def encode(
        self, examples: Sequence[Judged], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return texts or pairs, cut as the tokenizer cuts; `length` is what each had."""
        from peftkit.preprocessing.classification_rows import encode_texts

        rows = encode_texts([one.texts for one in examples], tokenizer, self.max_length)
        return [
            [{**row, "labels": example.target}] for row, example in zip(rows, examples, strict=True)
        ]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a row's tokens; its one label is trained."""
        length, kept = int(row[LENGTH]), len(row["input_ids"])
        return RowCount(
            length=length, needed=1, num_tokens=kept, num_trained=1, is_cut=length > kept,
            is_ended=True,
        )  # fmt: skip

    def weigh(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Return the weights that `class_weights` states; by the labels' frequency if balanced."""
        stated = self.config.class_weights
        if stated is None:
            return {}
        if stated == BALANCED:
            return balanced_weights(counts)
        unknown = [label for label in stated if label not in counts]
        if unknown:
            raise DataError(
                f"there is no label {unknown[0]!r}; the labels are {', '.join(map(repr, counts))}",
                hint="name labels as the data does; the others count 1",
            )
        return {label: float(stated.get(label, 1.0)) for label in counts}

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Pad rows to the longest of a batch, and weigh labels by those of the training rows."""
        from transformers import DataCollatorWithPadding

        loss_of_batch = None
        if self.config.class_weights is not None:
            names: Mapping[int, str] = native_model(parts.model).config.id2label
            found = Counter(parts.train["labels"][:])
            weights = self.weigh({name: found[number] for number, name in names.items()})
            loss_of_batch = self._weighted(list(weights.values()))
        return {
            "data_collator": DataCollatorWithPadding(parts.tokenizer),
            "loss_of_batch": loss_of_batch,
        }

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return tokens, and a label for each row."""
        return {**super().columns(point), "labels": (point.micro_batch,)}

    def loss(self) -> Loss:
        """Return the trainer's loss; what labels count changes no shape, so all count 1 here."""
        is_weighted = self.config.class_weights is not None
        return self._weighted(None) if is_weighted else plain_loss(self.config)

    def _weighted(self, weights: Sequence[float] | None) -> Loss:
        return weighted_loss(weights, label_smoothing=self.config.label_smoothing_factor)


def balanced_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Weigh labels so that each counts as much in all: rows / (labels x rows of the label).

    A label without rows counts 1: no row asks.
    """
    total, num_labels = sum(counts.values()), len(counts)
    return {
        label: total / (num_labels * count) if count else 1.0 for label, count in counts.items()
    }


@cache
def _arguments_class() -> type[TrainingArguments]:
    """Extend transformers' TrainingArguments by what it lacks: a row's length, labels' weights."""
    from transformers import TrainingArguments

    @dataclass
    class ClassifyArguments(TrainingArguments):  # type: ignore[misc]  # transformers is untyped
        """Extend transformers' TrainingArguments by a row's length and the labels' weights."""

        max_length: int = field(
            default=512, metadata={"help": "Tokens that a row may have; the rest is cut."}
        )
        class_weights: Literal["balanced"] | dict[str, float] | None = field(
            default=None,
            metadata={
                "help": "How much a label counts in the loss: `balanced` for as much in all as any"
                " other, or label -> weight; labels that are not named count 1."
            },
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    ClassifyArguments.__qualname__ = "ClassifyArguments"
    return ClassifyArguments


def __getattr__(name: str) -> type[TrainingArguments]:
    """Make `ClassifyArguments` on first use: importing a method must not import transformers."""
    if name == "ClassifyArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
