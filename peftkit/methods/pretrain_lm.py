"""Pretrain a small causal language model, and its byte-level BPE tokenizer, from plain text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.methods import arguments
from peftkit.methods.trainer import make_trainer
from peftkit.plugins import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from peftkit.plugins import Decision, Machine

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


class PretrainLM:
    """Train a causal model on every token of packed text, through transformers' Trainer."""

    Config = "peftkit.methods.pretrain_lm:PretrainLMArguments"
    auto_class = "AutoModelForCausalLM"
    examples = (Text,)
    owned = arguments.OWNED

    def __init__(self, config: TrainingArguments) -> None:
        self.config = config

    @property
    def max_length(self) -> None:
        """Return None: texts of any length are cut into blocks."""
        return

    @staticmethod
    def decide(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> Sequence[Decision]:  # noqa: ARG004
        """Choose device and logging where the recipe is silent; precision is upstream's default."""
        chosen = [
            *arguments.on_cpu(machine.device, why="transformers raises on bf16"),
            *arguments.logging(options),
            ("include_num_input_tokens_seen", "all", "every token of a full block is real"),
        ]
        return arguments.decisions("pretrain_lm", chosen, options)

    def encode(self, example: Text, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
        """Return `input_ids` and equal `labels`, ending in the end-of-text token."""
        from peftkit.preprocessing.chat_labels import encode_text

        return encode_text(example.text, tokenizer)

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Join the rows in their order and cut them into full blocks of `max_length`."""
        return pack(rows["input_ids"], max_length=self.config.max_length)

    def trainer(  # noqa: PLR0913 - the parts of a training
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Dataset,
        validation: Dataset | None,
        callbacks: Sequence[TrainerCallback],
        *,
        output_dir: Path,
    ) -> Trainer:
        """Make transformers' own Trainer over packed blocks, which need no padding."""
        from transformers import Trainer, default_data_collator

        from peftkit.methods.muon import make_muon

        optimizer = make_muon(model, self.config) if self.config.muon else None
        return make_trainer(
            Trainer, self.config, train, validation, callbacks, output_dir=output_dir,
            model=model, processing_class=tokenizer, data_collator=default_data_collator,
            optimizers=(optimizer, None),
        )  # fmt: skip


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, which encodes any text, with our special tokens and chat template.

    Args:
        vocab_size: tokens in all, the special ones and the 256 bytes included.
        max_length: tokens of the model's context.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


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
