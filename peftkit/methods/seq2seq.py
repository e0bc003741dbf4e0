"""Fine-tune an encoder-decoder model through transformers' Seq2SeqTrainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import SEQ_2_SEQ_LM, Conversation, Method, Point, Row, RowCount, Training

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        Seq2SeqTrainingArguments,
        Trainer,
    )

PAD, END = "<pad>", "</s>"
_ANSWERS = "evaluate.generation: peftkit generates after training, base beside tuned"


class Seq2Seq(Method):
    """Train an encoder-decoder to write the answer of what its encoder reads."""

    Config = "peftkit.methods.seq2seq:Seq2SeqArguments"
    kind = SEQ_2_SEQ_LM
    examples = (Conversation,)
    owned: ClassVar[Mapping[str, str]] = {
        **Method.owned,
        "predict_with_generate": _ANSWERS,
        "generation_max_length": _ANSWERS,
        "generation_num_beams": _ANSWERS,
        "generation_config": _ANSWERS,
        "sortish_sampler": "train_sampling_strategy: group_by_length",
    }
    length_option = "max_source_length"
    target_option = "max_target_length"

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

    def encode(
        self, examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return sources as `input_ids` and targets as `labels`, not yet cut."""
        from peftkit.preprocessing.seq2seq_rows import encode_pairs

        rows = encode_pairs(examples, tokenizer)
        return [row if isinstance(row, DataError) else [row] for row in rows]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a row's tokens; all of the target's are trained."""
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

    def train_tokenizer(
        self, texts: Iterable[str], *, vocab_size: int, max_length: int | None
    ) -> PreTrainedTokenizerFast:
        """Train a byte-level BPE that ends every text in `</s>`, as T5's does."""
        from tokenizers.processors import TemplateProcessing
        from transformers import PreTrainedTokenizerFast

        from peftkit.methods.pretrain_lm import byte_level_bpe

        bpe = byte_level_bpe(texts, vocab_size=vocab_size, special_tokens=(PAD, END))
        bpe.post_processor = TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, bpe.token_to_id(END))]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=bpe,
            eos_token=END,
            pad_token=PAD,
            model_max_length=max_length,
            clean_up_tokenization_spaces=False,
        )

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return a Seq2SeqTrainer that counts each batch of an accumulated step alike."""
        from peftkit.plugins.batch_mean_trainer import Seq2SeqBatchMeanTrainer

        return Seq2SeqBatchMeanTrainer

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Pad sources and targets apart."""
        from transformers import DataCollatorForSeq2Seq

        from peftkit.models.decoder_start import Shifting

        return {
            "data_collator": DataCollatorForSeq2Seq(parts.tokenizer, model=Shifting(parts.model)),
            "optimizers": (self.optimizer(parts.model), None),
        }

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer | None:
        """Make Muon where the recipe asks for it."""
        from peftkit.methods.muon import make_muon

        return make_muon(model, self.config) if self.config.muon else None

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return what is read, and what is written, which the decoder reads shifted."""
        written = (point.micro_batch, point.target_length or point.length)
        return {
            "input_ids": (point.micro_batch, point.length),
            "labels": written,
            "decoder_input_ids": written,
        }


@cache
def _arguments_class() -> type[Seq2SeqTrainingArguments]:
    """Extend transformers' Seq2SeqTrainingArguments by the lengths, which it lacks."""
    from transformers import Seq2SeqTrainingArguments

    @dataclass
    class Seq2SeqArguments(Seq2SeqTrainingArguments):  # type: ignore[misc]  # it is untyped
        """Extend transformers' Seq2SeqTrainingArguments by the lengths of both sides and Muon."""

        max_source_length: int = field(
            default=1024, metadata={"help": "Tokens that a source may have; the rest is cut."}
        )
        max_target_length: int = field(
            default=128, metadata={"help": "Tokens that a target may have; the rest is cut."}
        )
        muon: bool = field(
            default=False,
            metadata={
                "help": "Step hidden matrices by Muon instead of `optim`, at the same learning"
                " rate; embeddings, head and vectors by AdamW. For a new model."
            },
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    Seq2SeqArguments.__qualname__ = "Seq2SeqArguments"
    return Seq2SeqArguments


def __getattr__(name: str) -> type[Seq2SeqTrainingArguments]:
    """Make `Seq2SeqArguments` on first use: importing a method must not import transformers."""
    if name == "Seq2SeqArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
