"""Fine-tune an encoder, or a decoder, to choose labels, through transformers' Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.methods import arguments
from peftkit.methods.trainer import make_trainer
from peftkit.plugins import Labeled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from datasets import Dataset
    from peft import PeftModel
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from peftkit.plugins import Decision, Machine
    from peftkit.preprocessing.encode import RowCount


class Classify:
    """Train a classification head over an encoder or a decoder, and the adapter below it."""

    Config = "peftkit.methods.classify:ClassifyArguments"
    auto_class = "AutoModelForSequenceClassification"
    examples = (Labeled,)
    owned = arguments.OWNED

    def __init__(self, config: TrainingArguments) -> None:
        self.config = config

    @property
    def max_length(self) -> int:
        """Return the tokens that a row may have."""
        length: int = self.config.max_length
        return length

    @property
    def use_cpu(self) -> bool:
        """Tell whether the CPU is used although there may be an accelerator."""
        return bool(self.config.use_cpu)

    @staticmethod
    def decide(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> Sequence[Decision]:
        """Choose device, precision and logging where the recipe is silent."""
        return arguments.decide_plain("classify", options, dtype=dtype, machine=machine)

    def encode(self, example: Labeled, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return a text's or a pair's tokens, cut, and the label's number as `labels`."""
        (row,) = self.encode_many([example], tokenizer)
        return row

    def encode_many(
        self, examples: Sequence[Labeled], tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Encode many examples at once, cut as the tokenizer cuts; `length` is what each had."""
        from peftkit.preprocessing.classification_rows import encode_texts

        rows = encode_texts([one.texts for one in examples], tokenizer, self.max_length)
        return [
            {**row, "labels": example.number} for row, example in zip(rows, examples, strict=True)
        ]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a row's tokens; its one label is trained."""
        from peftkit.preprocessing.encode import LENGTH, RowCount

        length, kept = int(row[LENGTH]), len(row["input_ids"])
        return RowCount(
            length=length, needed=1, num_tokens=kept, num_trained=1, is_cut=length > kept,
            is_ended=True,
        )  # fmt: skip

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Leave rows as they are: a pair is cut by its tokenizer, when it is encoded."""
        return rows

    def trainer(  # noqa: PLR0913 - the parts of a training
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Dataset,
        validation: Dataset | None,
        callbacks: Sequence[TrainerCallback],
        *,
        output_dir: Path,
    ) -> Trainer:
        """Make transformers' own Trainer over rows padded to the longest of a batch."""
        from transformers import DataCollatorWithPadding, Trainer

        return make_trainer(
            Trainer, self.config, train, validation, callbacks, output_dir=output_dir,
            model=model, processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )  # fmt: skip


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
