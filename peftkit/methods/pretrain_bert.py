"""Pretrain an encoder from plain text: BERT by masked words and next sentences, others by words."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, UsageError
from peftkit.plugins import (
    MASKED_LM,
    PRETRAINING,
    Method,
    Point,
    Row,
    RowCount,
    Text,
    Training,
    make_trainer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        PretrainedConfig,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    from peftkit.plugins import Answerer, Asking, Evaluator, Scoring
    from peftkit.plugins.losses import Loss
    from peftkit.preprocessing.pretraining_rows import RowMaker


class PretrainMLM(Method):
    """Train an encoder to fill in masked words, in blocks of joined texts."""

    Config = "peftkit.methods.pretrain_bert:PretrainMLMArguments"
    kind = MASKED_LM
    examples = (Text,)
    loss_is = "cross-entropy of the masked words"
    tokenizers = ("wordpiece",)

    @property
    def max_length(self) -> None:
        """Return None: texts of any length are cut into rows."""
        return

    @property
    def longest_row(self) -> int:
        """Return the tokens of a row."""
        length: int = self.config.max_length
        return length

    def check_config(self, config: PretrainedConfig) -> None:
        """Refuse an encoder-decoder, whose masked words are not its pretraining."""
        if config.is_encoder_decoder:
            raise UsageError(
                f"a {config.model_type} model is an encoder-decoder, and masked words train"
                " encoders",
                hint="method: seq2seq",
            )

    def encode(
        self, examples: Sequence[Text], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return each text's tokens, and what each begins: a sentence, a word, or neither."""
        from peftkit.preprocessing.segment_pairs import encode_documents

        if self.config.whole_word_mask and not tokenizer.is_fast:
            raise UsageError(
                "whole_word_mask needs to know which tokens are one word, and"
                f" {type(tokenizer).__name__} does not say",
                hint="delete it, or use a model with a tokenizer.json",
            )
        rows = encode_documents([one.text for one in examples], tokenizer)
        return [row if isinstance(row, DataError) else [row] for row in rows]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count a text's tokens, of which a share is predicted."""
        from peftkit.preprocessing.masked_words import num_predictions

        length = len(row["input_ids"])
        trained = num_predictions(length, self.config.mlm_probability)
        return RowCount(length, 1, length, trained, is_cut=False, is_ended=True)

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Join texts into blocks and mask them."""
        return self._maker(tokenizer).blocks(rows)

    def _maker(self, tokenizer: PreTrainedTokenizerBase) -> RowMaker:
        from peftkit.preprocessing.masked_words import Masking
        from peftkit.preprocessing.pretraining_rows import RowMaker, marks_of

        args, marks = self.config, marks_of(tokenizer)
        return RowMaker(
            max_length=args.max_length,
            marks=marks,
            masking=Masking(
                mask_id=marks.mask,
                vocab_size=len(tokenizer),
                mlm_probability=args.mlm_probability,
                mask_replace_prob=args.mask_replace_prob,
                random_replace_prob=args.random_replace_prob,
                whole_word_mask=args.whole_word_mask,
            ),
            seed=args.seed if args.data_seed is None else args.data_seed,
            dupe_factor=args.dupe_factor,
        )

    def train_tokenizer(
        self,
        texts: Iterable[str],
        *,
        vocab_size: int,
        max_length: int | None,
        lowercase: bool = True,
    ) -> PreTrainedTokenizerFast:
        """Train a WordPiece tokenizer as BERT's."""
        from peftkit.preprocessing.wordpiece import train_wordpiece

        return train_wordpiece(
            texts, vocab_size=vocab_size, max_length=max_length, lowercase=lowercase
        )

    def trainer(self, parts: Training) -> Trainer:
        """Make the trainer, whose model's head sees masked words alone."""
        self.prepare_model(parts.model)
        return make_trainer(self.trainer_class, self.config, parts, **self.trainer_options(parts))

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return transformers' Trainer, which tells both losses apart."""
        from peftkit.methods.pretraining_trainer import trainer_class

        return trainer_class()

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Return the collator and the optimizer."""
        from peftkit.methods.masked_head import MaskedBatches

        return {
            "data_collator": MaskedBatches(
                parts.tokenizer.pad_token_id or 0, self.config.mlm_probability
            ),
            "optimizers": (self.optimizer(parts.model), None),
        }

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Let the head see masked words alone, and be cut into shards where that is asked for."""
        from peftkit.methods.masked_head import cut_bias_apart, score_masked_only

        score_masked_only(model)
        if self.config.fsdp:
            cut_bias_apart(model)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer | None:
        """Make Muon where the recipe asks for it."""
        from peftkit.methods.muon import make_muon

        return make_muon(model, self.config) if self.config.muon else None

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return tokens, and the labels of the masked ones."""
        from peftkit.methods.masked_head import POSITIONS
        from peftkit.preprocessing.masked_words import num_predictions

        masked = (
            point.micro_batch,
            num_predictions(point.length, self.config.mlm_probability),
        )
        tokens = (point.micro_batch, point.length)
        return {"input_ids": tokens, "labels": masked, POSITIONS: masked}

    def loss(self) -> Loss:
        """Return the model's own loss; the trainer only looks at its parts."""
        from peftkit.plugins.losses import model_loss

        return model_loss

    def evaluator(self, scoring: Scoring) -> Evaluator:
        """Score masked words, and next sentences where there are any."""
        from peftkit.methods.masked_head import MaskedBatches
        from peftkit.methods.masked_scores import MaskedWordsEvaluator

        collate = MaskedBatches(scoring.tokenizer.pad_token_id or 0, self.config.mlm_probability)
        return MaskedWordsEvaluator(scoring, self.arrange, collate)

    def answerer(self, asking: Asking) -> Answerer:
        """Fill in the mask tokens of a text."""
        from peftkit.methods.masked_answers import MaskedWordsAnswerer

        return MaskedWordsAnswerer(asking)


class PretrainBert(PretrainMLM):
    """Pretrain BERT as its authors did: masked words and next sentences together."""

    Config = "peftkit.methods.pretrain_bert:PretrainBertArguments"
    kind = PRETRAINING
    loss_is = "cross-entropy of the masked words, and that of the next sentences added to it"

    def check_config(self, config: PretrainedConfig) -> None:
        """Refuse an architecture without a next-sentence head."""
        from transformers import AutoModelForPreTraining

        cls = AutoModelForPreTraining._model_mapping[type(config)]
        if "next_sentence_label" not in inspect.signature(cls.forward).parameters:
            raise UsageError(
                f"a {config.model_type} model is pretrained without next sentences:"
                f" {cls.__name__} has no head for them",
                hint="method: pretrain_mlm trains masked words alone",
            )

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Cut texts into pairs of segments and mask them."""
        return self._maker(tokenizer).pairs(rows)

    def _maker(self, tokenizer: PreTrainedTokenizerBase) -> RowMaker:
        from dataclasses import replace

        return replace(super()._maker(tokenizer), short_seq_prob=self.config.short_seq_prob)

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return tokens, the labels of the masked ones, and one for each pair."""
        return {**super().columns(point), "next_sentence_label": (point.micro_batch,)}


@cache
def _arguments_classes() -> dict[str, type[TrainingArguments]]:
    """Extend transformers' TrainingArguments, imported only when asked for, by options of ours."""
    from transformers import TrainingArguments

    def option(default: Any, text: str) -> Any:
        return field(default=default, metadata={"help": text})

    @dataclass
    class PretrainMLMArguments(TrainingArguments):  # type: ignore[misc]  # transformers is untyped
        """Extend transformers' TrainingArguments by how words are masked, and Muon."""

        max_length: int = option(512, "Tokens of a row, at most the model's context.")
        mlm_probability: float = option(0.15, "Share of a row's tokens that are predicted.")
        mask_replace_prob: float = option(0.8, "Share of those that are read as the mask token.")
        random_replace_prob: float = option(
            0.1, "Share of those that are read as a random token; the rest is read as it is."
        )
        whole_word_mask: bool = option(False, "Mask all tokens of a word, or none.")
        dupe_factor: int = option(
            1, "How many times texts are cut and masked, each time anew; an epoch reads all."
        )
        muon: bool = option(
            False,
            "Step hidden matrices by Muon instead of `optim`, at the same learning rate;"
            " embeddings, head and vectors by AdamW.",
        )

    @dataclass
    class PretrainBertArguments(PretrainMLMArguments):
        """Extend masked words by pairs of segments."""

        short_seq_prob: float = option(0.1, "Share of pairs that are shorter than `max_length`.")

    made = {"PretrainMLMArguments": PretrainMLMArguments}
    made["PretrainBertArguments"] = PretrainBertArguments
    for name, cls in made.items():
        cls.__qualname__ = name  # a checkpoint's training_args.bin pickles the class by this name
    return made


def __getattr__(name: str) -> type[TrainingArguments]:
    """Make the arguments on first use: importing a method must not import transformers."""
    if name in ("PretrainMLMArguments", "PretrainBertArguments"):
        return _arguments_classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
