"""Fine-tune a model that sees pictures and writes text, through trl's SFTTrainer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.methods.sft import SFT
from peftkit.plugins import (
    IMAGE_TEXT_TO_TEXT,
    Chosen,
    Example,
    Pictured,
    RowCount,
    Training,
    make_trainer,
)
from peftkit.plugins.rows import IGNORED, PICTURES, TEXT, count_sequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        PretrainedConfig,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        ProcessorMixin,
        Trainer,
    )

    from peftkit.plugins import Answerer, Asking, Evaluator, Machine, Row, Scoring

_WHOLE = "nothing: a row with pictures is trained whole"


class VisionSFT(SFT):
    """Train on the assistant's turns of conversations with pictures."""

    Config = "trl:SFTConfig"
    kind = IMAGE_TEXT_TO_TEXT
    examples: ClassVar[tuple[type[Example], ...]] = (Pictured,)
    fuses_head = False
    speeds = frozenset()
    unplanned = "what pictures become within the model is not rehearsed"
    owned: ClassVar[Mapping[str, str]] = {
        **SFT.owned,
        "packing": _WHOLE,
        "packing_strategy": _WHOLE,
        "padding_free": _WHOLE,
        "truncation_mode": f"{_WHOLE}, or left out where it is longer than max_length",
    }

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, machine: Machine
    ) -> Sequence[Chosen]:
        """Choose what sft does, and keep the columns of pictures and texts for the collator."""
        why = "the collator makes a batch of pictures and texts"
        return [
            *super().decide(options, dtype=dtype, machine=machine),
            Chosen("remove_unused_columns", False, why),
        ]

    def check_config(self, config: PretrainedConfig) -> None:
        """Refuse a model of text alone.

        Raises:
            UsageError: names the method that trains it.
        """
        if config.get_text_config() is config:
            raise UsageError(
                f"{config.model_type} reads text alone, and vision_sft trains what sees pictures",
                hint="use the method sft",
            )

    # Rows

    def encode(  # type: ignore[override]  # its examples are its own
        self, examples: Sequence[Pictured], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return tokens and labels of rows, pictures' tokens among them, with text and pictures."""
        from peftkit.preprocessing.pictures import encode_pictured

        del tokenizer
        return encode_pictured(examples, self._processor)

    @property
    def _processor(self) -> ProcessorMixin:
        if self.processor is None:
            raise UsageError("vision_sft encodes with a processor, and none was loaded")
        return self.processor

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a row's tokens; one that is too long is left out, since no picture can be cut."""
        whole = count_sequence(row["labels"], None)
        limit = self.max_length
        if limit is None or whole.length <= limit:
            return whole
        return dataclasses.replace(
            whole, needed=whole.length, num_tokens=0, num_trained=0, is_cut=True, is_ended=False
        )

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Return the rows, all of which fit."""
        del tokenizer
        return rows.select_columns(["input_ids", "labels", TEXT, PICTURES])

    # Training

    def trainer(self, parts: Training) -> Trainer:
        """Make trl's SFTTrainer with the processor, over rows that are rendered already.

        Raises:
            UsageError: trl refuses this combination of options, model and adapter.
        """
        read = dataclasses.replace(parts, tokenizer=self._processor)
        try:
            return make_trainer(
                self.trainer_class, self.config, read, **self.trainer_options(parts)
            )
        except ValueError as error:
            raise UsageError(
                f"trl's SFTTrainer refuses method.vision_sft with this model and adapter: {error}"
            ) from error

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Let trl's own collator make batches, with the labels that the audit counted."""
        del parts
        return {"data_collator": PictureCollator(self._processor, self.padding_multiple)}

    def loss(self) -> None:
        """Return None: only the trainer computes it."""
        return

    # A model that is made anew

    def train_tokenizer(
        self, texts: Iterable[str], *, vocab_size: int, max_length: int | None
    ) -> PreTrainedTokenizerFast:
        """Train a byte-level BPE with the tokens that stand around and for pictures."""
        from peftkit.methods.vision_new import train_tokenizer

        return train_tokenizer(texts, vocab_size=vocab_size, max_length=max_length)

    def make_processor(
        self, tokenizer: PreTrainedTokenizerFast, config: Mapping[str, Any]
    ) -> ProcessorMixin:
        """Make Gemma 3's processor, whose pictures are as large as the new model's."""
        from peftkit.methods.vision_new import make_processor

        return make_processor(tokenizer, config)

    def new_model_options(
        self, tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return which tokens stand for pictures, and the size of the vocabulary."""
        from peftkit.methods.vision_new import config_options

        return config_options(tokenizer, config)

    # Scoring

    def evaluator(self, scoring: Scoring) -> Evaluator | None:
        """Make what lets each model answer about pictures."""
        from peftkit.scoring.pictures import PictureEvaluator

        return PictureEvaluator(scoring, self._processor)

    def answerer(self, asking: Asking) -> Answerer | None:
        """Make what answers about pictures."""
        from peftkit.scoring.pictures import PictureAnswerer

        return PictureAnswerer(asking, self._processor)


class PictureCollator:
    """Make batches by trl's own collator, and set the labels that rows were encoded with."""

    def __init__(self, processor: ProcessorMixin, padding_multiple: int = 1) -> None:
        from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

        multiple = padding_multiple if padding_multiple > 1 else None
        self._native = DataCollatorForVisionLanguageModeling(
            processor, pad_to_multiple_of=multiple, dataset_text_field=TEXT
        )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, torch.Tensor]:
        """Return a padded batch.

        Raises:
            DataError: the processor makes other tokens of a row than when it was encoded.
        """
        from peftkit.preprocessing.pictures import to_picture

        shown = [[to_picture(file).open() for file in row[PICTURES]] for row in rows]
        texts = [
            {TEXT: row[TEXT], PICTURES: images} for row, images in zip(rows, shown, strict=True)
        ]
        batch: Mapping[str, torch.Tensor] = self._native(texts)
        labels = batch["labels"].fill_(IGNORED)
        for at, row in enumerate(rows):
            ids = row["input_ids"]
            if batch["input_ids"][at, : len(ids)].tolist() != list(ids):
                raise DataError(
                    "the processor makes other tokens of a row than when it was encoded",
                    hint="pictures that changed on disk since the run began; run it anew",
                )
            labels[at, : len(ids)] = labels.new_tensor(row["labels"])
        return batch
