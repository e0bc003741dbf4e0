"""Supervised fine-tuning of a causal language model through trl's SFTTrainer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.methods.expert_balance import settle_balance
from peftkit.methods.fast_steps import FastSteps
from peftkit.plugins import (
    CAUSAL_LM,
    Chosen,
    Conversation,
    Example,
    Machine,
    Row,
    Text,
    Training,
    arguments,
    make_trainer,
)
from peftkit.plugins.losses import fused_loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Trainer

    from peftkit.plugins.losses import Loss
    from peftkit.plugins.speed import Way

OWNED: Mapping[str, str] = {
    **arguments.OWNED,
    "model_init_kwargs": "the keys of `model:`",
    "trust_remote_code": "model.trust_remote_code",
    "chat_template_path": "model.chat_template",
    "eos_token": "a tokenizer whose end token is right: the chat template must write it",
    "pad_token": "a tokenizer with a padding token; peftkit picks one where it is missing",
    "dataset_text_field": "data.task: {text: {text: COLUMN}}",
    "dataset_num_proc": "nothing: rows are encoded in batches before training",
    "dataset_kwargs": arguments.LABELS_ARE_OURS,
    "completion_only_loss": arguments.LABELS_ARE_OURS,
    "assistant_only_loss": arguments.LABELS_ARE_OURS,
    "eval_packing": "method.sft.packing, which packs every split",
}


class SFT(FastSteps):
    """Train on the assistant's turns of conversations, or on every token of texts."""

    Config = "trl:SFTConfig"
    kind = CAUSAL_LM
    examples: ClassVar[tuple[type[Example], ...]] = (Conversation, Text)
    owned = OWNED
    fuses_head = True
    speeds = frozenset({"loss", "unpad"})
    balances_experts = True

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, machine: Machine
    ) -> Sequence[Chosen]:
        """Choose precision, checkpointing and logging where the recipe is silent."""
        is_flat = options.get("packing") or options.get("padding_free")
        counted = "all" if is_flat else arguments.REAL_TOKENS.value
        chosen = arguments.choose_for_trl(options, dtype=dtype, machine=machine)
        return [
            *(one for one in chosen if one.option != arguments.REAL_TOKENS.option),
            arguments.REAL_TOKENS._replace(value=counted),
            Chosen("dataset_kwargs", {"skip_prepare_dataset": True}, OWNED["dataset_kwargs"]),
        ]

    @property
    def max_length(self) -> int | None:
        """Return the tokens a row may have; None where longer texts are cut into several rows."""
        if self.config.packing and self.config.packing_strategy != "bfd":
            return None
        return super().max_length

    @property
    def longest_row(self) -> int | None:
        """Return the tokens of a row, or of the blocks that texts are packed into."""
        length: int | None = self.config.max_length
        return length

    @property
    def keeps_end(self) -> bool:
        """Tell whether a row that is too long keeps its end."""
        return bool(self.config.truncation_mode == "keep_end")

    @property
    def is_flat(self) -> bool:
        """Tell whether trl puts all rows of a batch into one: padding-free, or packed by bfd."""
        packs_whole = self.config.packing_strategy in ("bfd", "bfd_split")
        return bool(self.config.padding_free or (self.config.packing and packs_whole))

    @property
    def padding_multiple(self) -> int:
        """Return what trl's collator rounds lengths up to a multiple of."""
        return int(self.config.pad_to_multiple_of or 1)

    @property
    def offloads_activations(self) -> bool:
        """Tell whether trl keeps on the host what the backward needs."""
        return bool(self.config.activation_offloading)

    def encode(
        self, examples: Sequence[Conversation | Text], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return `input_ids` and `labels` (-100 where not trained), not yet truncated."""
        from peftkit.preprocessing.chat_labels import encode_texts
        from peftkit.preprocessing.dialogue import encode_dialogues

        chats = [one for one in examples if isinstance(one, Conversation)]
        texts = [one.text for one in examples if isinstance(one, Text)]
        encoded_chats = iter(encode_dialogues(chats, tokenizer))
        encoded_texts = iter(encode_texts(texts, tokenizer))
        rows = (
            next(encoded_chats if isinstance(one, Conversation) else encoded_texts)
            for one in examples
        )
        return [row if isinstance(row, DataError) else [row] for row in rows]

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Cut rows to `max_length`, or pack them into blocks of that length, as trl would.

        The order of the steps is that of trl's own preparation, which is switched off so that
        the audit and the trainer see the same rows.
        """
        args = self.config
        rows = rows.select_columns(["input_ids", "labels"])
        if self.max_length is not None:
            rows = _truncate(rows, self.max_length, keep_end=self.keeps_end)
        if args.packing:
            from trl import pack_dataset

            if args.max_length is None:
                raise UsageError(
                    "method.sft.packing needs the length of a block, and max_length is null",
                    hint="method.sft.max_length=1024",
                )
            if args.shuffle_dataset:
                rows = rows.shuffle(seed=args.seed)
            rows = pack_dataset(rows, args.max_length, args.packing_strategy)
        return rows.shuffle(seed=args.seed) if args.shuffle_dataset else rows

    def train_tokenizer(
        self, texts: Iterable[str], *, vocab_size: int, max_length: int | None
    ) -> PreTrainedTokenizerFast:
        """Train the tokenizer that pretraining would."""
        from peftkit.methods.pretrain_lm import train_tokenizer

        return train_tokenizer(texts, vocab_size=vocab_size, max_length=max_length)

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's SFTTrainer."""
        from trl import SFTTrainer

        return SFTTrainer  # type: ignore[no-any-return]

    def trainer(self, parts: Training) -> Trainer:
        """Make trl's SFTTrainer over rows that are encoded, cut and packed already.

        Raises:
            UsageError: trl refuses this combination of options, model and adapter.
        """
        args = copy.copy(self.config)
        if args.padding_free and not args.packing:
            args.max_length = None  # trl refuses a length it would not enforce; arrange did
        settle_balance(args, parts.model)
        way = self.proved(parts.model)
        try:
            if way.scores_trained or way.by_rows:
                trainer = self._fast_trainer(way, args, parts)
            else:
                trainer = make_trainer(self.trainer_class, args, parts)
        except ValueError as error:
            raise UsageError(
                f"trl's SFTTrainer refuses method.sft with this model and adapter: {error}"
            ) from error
        if len(trainer.train_dataset) != len(parts.train):
            raise UsageError(
                f"trl kept {len(trainer.train_dataset)} of {len(parts.train)} training rows",
                hint="this trl prepares rows although it was told not to; install the tested one",
            )
        return trainer

    def _fast_trainer(self, way: Way, args: Any, parts: Training) -> Trainer:
        """Make the trainer of a way that is not trl's own, on a model that is proved to go it."""
        from peftkit.methods.trained_positions import FlatCollator, go_by_rows

        native: dict[str, Any] = {}
        trainer_class = self.trainer_class
        if way.by_rows:
            args.include_num_input_tokens_seen = "all"  # nothing in such a batch is padding
            args.padding_free = args.packing = False  # the collator does it
            args.max_length = None
            native["data_collator"] = FlatCollator(parts.tokenizer.pad_token_id or 0)
            go_by_rows(parts.model)
        if way.scores_trained:
            trainer = self.fast_trainer(trainer_class, args, parts, **native)
            is_smoothed = trainer.label_smoother is not None and args.loss_type == "nll"
            if trainer.aux_loss_enabled and not is_smoothed:  # trl leaves it out where it smooths
                trainer.balance = trainer.router_aux_loss_coef
            return trainer
        return make_trainer(trainer_class, args, parts, **native)

    def loss(self) -> Loss | None:
        """Return trl's fused loss."""
        return fused_loss


def _truncate(rows: Dataset, max_length: int, *, keep_end: bool) -> Dataset:
    """Cut both columns of rows that are too long; return the same rows when none is."""
    from peftkit.preprocessing.encode import longest

    if longest(rows, "input_ids") <= max_length:
        return rows
    kept = slice(-max_length, None) if keep_end else slice(max_length)

    def cut(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        return {column: [ids[kept] for ids in values] for column, values in batch.items()}

    return rows.map(cut, batched=True)
