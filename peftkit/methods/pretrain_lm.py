"""Pretrain a small causal language model, and its byte-level BPE tokenizer, from plain text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.methods.fast_steps import FastSteps
from peftkit.plugins import (
    CAUSAL_LM,
    Chosen,
    Machine,
    Row,
    Text,
    Training,
    arguments,
    make_trainer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer
    from transformers import (
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (END_OF_TEXT, PAD, *ROLES)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] | trim + eos_token -}}{%- endgeneration -%}"
    "{{- '\\n' -}}"
    "{%- else -%}"
    "{{- message['content'] | trim + '\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
"""One turn per role token; only the assistant's words and the end of its turn are trained on."""


class PretrainLM(FastSteps):
    """Train a causal model on every token of packed text, through transformers' Trainer."""

    Config = "peftkit.methods.pretrain_lm:PretrainLMArguments"
    kind = CAUSAL_LM
    examples = (Text,)
    pads = False

    @classmethod
    def decide(
        cls,
        options: Mapping[str, Any],
        *,
        dtype: str,  # noqa: ARG003 - precision is upstream's default
        machine: Machine,
    ) -> Sequence[Chosen]:
        """Choose device and logging where the recipe is silent."""
        return [
            *arguments.on_cpu(machine.device, why="transformers raises on bf16"),
            *arguments.logging(options),
            Chosen("include_num_input_tokens_seen", "all", "every token of a full block is real"),
        ]

    @property
    def max_length(self) -> None:
        """Return None: texts of any length are cut into blocks."""
        return

    @property
    def longest_row(self) -> int:
        """Return the tokens of a block."""
        length: int = self.config.max_length
        return length

    def encode(
        self, examples: Sequence[Text], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return `input_ids` and equal `labels`, ending in the end-of-text token."""
        from peftkit.preprocessing.chat_labels import encode_texts

        return [[row] for row in encode_texts([one.text for one in examples], tokenizer)]

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Join the rows in their order and cut them into full blocks of `max_length`."""
        return pack(rows["input_ids"], max_length=self.config.max_length)

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Take blocks as they are: they need no padding."""
        from transformers import default_data_collator

        return {
            "data_collator": default_data_collator,
            "optimizers": (self.optimizer(parts.model), None),
        }

    def trainer(self, parts: Training) -> Trainer:
        """Make transformers' Trainer, over a loss that keeps no logits where a model lets it."""
        options = self.trainer_options(parts)
        if not self.proved(parts.model).scores_trained:
            return make_trainer(self.trainer_class, self.config, parts, **options)
        return self.fast_trainer(self.trainer_class, self.config, parts, **options)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer | None:
        """Make Muon where the recipe asks for it."""
        from peftkit.methods.muon import make_muon

        return make_muon(model, self.config) if self.config.muon else None

    def train_tokenizer(
        self, texts: Iterable[str], *, vocab_size: int, max_length: int | None
    ) -> PreTrainedTokenizerFast:
        """Train a byte-level BPE, with our special tokens and chat template."""
        return train_tokenizer(texts, vocab_size=vocab_size, max_length=max_length)


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, max_length: int | None
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, which encodes any text, with our special tokens and chat template.

    Args:
        vocab_size: tokens in all, the special ones and the 256 bytes included.
        max_length: tokens of the model's context; None where it is unbounded.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = byte_level_bpe(texts, vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def byte_level_bpe(
    texts: Iterable[str], *, vocab_size: int, special_tokens: Sequence[str]
) -> Tokenizer:
    """Train a byte-level BPE whose first ids are the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def pack(token_ids: Iterable[list[int]], *, max_length: int) -> Dataset:
    """Join token sequences in their order and cut them into full blocks.

    Returns: equal columns `input_ids` and `labels`, `max_length` tokens a row; the last, partial
        block is dropped.
    Raises: DataError when the tokens do not fill one block.
    """
    import numpy as np
    from datasets import Dataset

    ids = np.concatenate([np.empty(0, np.int32), *(np.asarray(i, np.int32) for i in token_ids)])
    num_blocks = len(ids) // max_length
    if not num_blocks:
        raise DataError(
            f"the texts hold {len(ids)} tokens, fewer than one block of {max_length}",
            hint="add texts or lower method.pretrain_lm.max_length",
        )
    blocks = ids[: num_blocks * max_length].reshape(num_blocks, max_length)
    return Dataset.from_dict({"input_ids": blocks, "labels": blocks})


@cache
def _arguments_class() -> type[TrainingArguments]:
    """Extend transformers' TrainingArguments, imported only when asked for, by options of ours."""
    from transformers import TrainingArguments

    @dataclass
    class PretrainLMArguments(TrainingArguments):  # type: ignore[misc]  # transformers is untyped
        """Extend transformers' TrainingArguments by the block's length and Muon."""

        max_length: int = field(
            default=1024, metadata={"help": "Tokens of a block, at most the model's context."}
        )
        muon: bool = field(
            default=False,
            metadata={
                "help": "Step hidden matrices by Muon instead of `optim`, at the same learning"
                " rate; embeddings, head and vectors by AdamW."
            },
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    PretrainLMArguments.__qualname__ = "PretrainLMArguments"
    return PretrainLMArguments


def __getattr__(name: str) -> type[TrainingArguments]:
    """Make `PretrainLMArguments` on first use: importing a method must not import transformers."""
    if name == "PretrainLMArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
