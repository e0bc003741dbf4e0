"""Fine-tune an encoder-decoder model through transformers' Seq2SeqTrainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.methods import arguments
from peftkit.methods.trainer import make_trainer
from peftkit.plugins import Conversation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from datasets import Dataset
    from peft import PeftModel
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Seq2SeqTrainingArguments,
        Trainer,
        TrainerCallback,
    )

    from peftkit.plugins import Decision, Machine
    from peftkit.preprocessing.encode import RowCount

_ANSWERS = "evaluate.generation: peftkit generates after training, base beside tuned"


class Seq2Seq:
    """Train an encoder-decoder to write the answer of what its encoder reads."""

    Config = "peftkit.methods.seq2seq:Seq2SeqArguments"
    auto_class = "AutoModelForSeq2SeqLM"
    examples = (Conversation,)
    owned: Mapping[str, str] = {
        **arguments.OWNED,
        "predict_with_generate": _ANSWERS,
        "generation_max_length": _ANSWERS,
        "generation_num_beams": _ANSWERS,
        "generation_config": _ANSWERS,
        "sortish_sampler": "train_sampling_strategy: group_by_length",
    }

    def __init__(self, config: Seq2SeqTrainingArguments) -> None:
        self.config = config

    @property
    def max_length(self) -> int:
        """Return the tokens that a source may have."""
        length: int = self.config.max_source_length
        return length

    @property
    def max_target_length(self) -> int:
        """Return the tokens that a target may have."""
        length: int = self.config.max_target_length
        return length

    @property
    def use_cpu(self) -> bool:
        """Tell whether the CPU is used although there may be an accelerator."""
        return bool(self.config.use_cpu)

    @staticmethod
    def decide(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> Sequence[Decision]:
        """Choose device, precision and logging where the recipe is silent."""
        return arguments.decide_plain("seq2seq", options, dtype=dtype, machine=machine)

    def encode(
        self, example: Conversation, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, list[int]]:
        """Return the source as `input_ids` and the target as `labels`, not yet cut."""
        (row,) = self.encode_many([example], tokenizer)
        if isinstance(row, DataError):
            raise row
        return row

    def encode_many(
        self, examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, list[int]] | DataError]:
        """Encode many examples at once; a row's error stands in its place."""
        from peftkit.preprocessing.seq2seq_rows import encode_pairs

        return encode_pairs(examples, tokenizer)

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a row's tokens; all of the target's are trained."""
        from peftkit.preprocessing.encode import RowCount

        source, target = len(row["input_ids"]), len(row["labels"])
        kept = min(target, self.max_target_length)
        return RowCount(
            length=source,
            target_length=target,
            needed=1,
            num_tokens=min(source, self.max_length) + kept,
            num_trained=kept,
            is_cut=source > self.max_length or target > kept,
            is_ended=target == kept,
        )

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Cut sources before what closes them, and targets at their end.

        A target that is cut does not end: it would teach the model to stop in mid-sentence.
        """
        from peftkit.preprocessing.encode import longest
        from peftkit.preprocessing.seq2seq_rows import cut_before_closing, source_closing

        rows = rows.select_columns(["input_ids", "labels"])
        has_long_sources = longest(rows, "input_ids") > self.max_length
        if not has_long_sources and longest(rows, "labels") <= self.max_target_length:
            return rows
        closing = source_closing(tokenizer)

        def cut(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
            sources, targets = batch["input_ids"], batch["labels"]
            return {
                "input_ids": [cut_before_closing(s, self.max_length, closing) for s in sources],
                "labels": [target[: self.max_target_length] for target in targets],
            }

        return rows.map(cut, batched=True, features=rows.features)

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
        """Make transformers' own Seq2SeqTrainer; the model shifts targets into its inputs."""
        from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer

        return make_trainer(
            Seq2SeqTrainer, self.config, train, validation, callbacks, output_dir=output_dir,
            model=model, processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        )  # fmt: skip


@cache
def _arguments_class() -> type[Seq2SeqTrainingArguments]:
    """Extend transformers' Seq2SeqTrainingArguments by the lengths, which it lacks."""
    from transformers import Seq2SeqTrainingArguments

    @dataclass
    class Seq2SeqArguments(Seq2SeqTrainingArguments):  # type: ignore[misc]  # it is untyped
        """Extend transformers' Seq2SeqTrainingArguments by the lengths of source and target."""

        max_source_length: int = field(
            default=1024, metadata={"help": "Tokens that a source may have; the rest is cut."}
        )
        max_target_length: int = field(
            default=128, metadata={"help": "Tokens that a target may have; the rest is cut."}
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    Seq2SeqArguments.__qualname__ = "Seq2SeqArguments"
    return Seq2SeqArguments


def __getattr__(name: str) -> type[Seq2SeqTrainingArguments]:
    """Make `Seq2SeqArguments` on first use: importing a method must not import transformers."""
    if name == "Seq2SeqArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
