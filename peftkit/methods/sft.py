"""Supervised fine-tuning of a causal language model through trl's SFTTrainer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, UsageError
from peftkit.methods import arguments
from peftkit.methods.trainer import make_trainer
from peftkit.plugins import Conversation, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
    from trl import SFTConfig

    from peftkit.plugins import Decision, Machine

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


class SFT:
    """Train on the assistant's turns of conversations, or on every token of texts."""

    Config = "trl:SFTConfig"
    auto_class = "AutoModelForCausalLM"
    examples = (Conversation, Text)
    owned = OWNED
    fuses_head = True
    """Whether the loss comes from trl's fused head, which keeps no logits; the planner asks."""

    def __init__(self, config: SFTConfig) -> None:
        self.config = config

    @property
    def max_length(self) -> int | None:
        """Return the tokens a row may have; None where longer texts are cut into several rows."""
        if self.config.packing and self.config.packing_strategy != "bfd":
            return None
        length: int | None = self.config.max_length
        return length

    @property
    def keeps_end(self) -> bool:
        """Tell whether a row that is too long keeps its end."""
        return bool(self.config.truncation_mode == "keep_end")

    @property
    def use_cpu(self) -> bool:
        """Tell whether the CPU is used although there may be an accelerator."""
        return bool(self.config.use_cpu)

    @staticmethod
    def decide(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> Sequence[Decision]:
        """Choose precision, checkpointing and logging where the recipe is silent."""
        device = "cpu" if options.get("use_cpu") else machine.device
        chosen = [
            *arguments.precision(options, dtype=dtype, device=device, machine=machine),
            *_device(device),
            *_logging(options),
        ]
        stated = set(options)
        if "gradient_checkpointing" in stated:  # the older name of the same option
            stated.add("activation_checkpointing")
        return arguments.decisions("sft", chosen, dict.fromkeys(stated))

    def encode(
        self, example: Conversation | Text, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, list[int]]:
        """Return `input_ids` and `labels` (-100 where not trained), not yet truncated."""
        from peftkit.preprocessing.chat_labels import encode_conversation, encode_text

        if isinstance(example, Text):
            return encode_text(example.text, tokenizer)
        return encode_conversation(example.messages, tokenizer)

    def encode_many(
        self, examples: Sequence[Conversation | Text], tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, list[int]] | DataError]:
        """Encode many examples at once, which uses all cores; a row's error stands in its place."""
        from peftkit.preprocessing.chat_labels import encode_examples

        return encode_examples(examples, tokenizer)

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
        """Make trl's SFTTrainer over rows that are encoded, cut and packed already.

        Raises:
            UsageError: trl refuses this combination of options, model and adapter.
        """
        from trl import SFTTrainer

        args = copy.copy(self.config)
        if args.padding_free and not args.packing:
            args.max_length = None  # trl refuses a length it would not enforce; arrange did
        attached = [(p, p.data) for p in model.parameters() if p.requires_grad]
        try:
            trainer = make_trainer(
                SFTTrainer, args, train, validation, callbacks, output_dir=output_dir,
                model=model, processing_class=tokenizer,
            )  # fmt: skip
        except ValueError as error:
            raise UsageError(
                f"trl's SFTTrainer refuses method.sft with this model and adapter: {error}"
            ) from error
        _restore_dtypes(attached)
        if len(trainer.train_dataset) != len(train):
            raise UsageError(
                f"trl kept {len(trainer.train_dataset)} of {len(train)} training rows",
                hint="this trl prepares rows although it was told not to; install the tested one",
            )
        return trainer


def _device(device: str) -> list[arguments.Chosen]:
    """Choose what depends on where the model sits."""
    if device == "cpu":
        return [
            *arguments.on_cpu(device, why="trl raises on bf16"),
            ("activation_checkpointing", False, "recomputing costs time, resident memory is ample"),
        ]
    return [("activation_checkpointing", True, "trl's default: a third more time, far less memory")]


def _logging(options: Mapping[str, Any]) -> list[arguments.Chosen]:
    is_flat = options.get("packing") or options.get("padding_free")
    return [
        *arguments.logging(options),
        (arguments.REAL_TOKENS[0], "all", arguments.REAL_TOKENS[2])
        if is_flat
        else arguments.REAL_TOKENS,
        ("dataset_kwargs", {"skip_prepare_dataset": True}, OWNED["dataset_kwargs"]),
    ]


def _truncate(rows: Dataset, max_length: int, *, keep_end: bool) -> Dataset:
    """Cut both columns of rows that are too long; return the same rows when none is."""
    from peftkit.preprocessing.encode import longest

    if longest(rows, "input_ids") <= max_length:
        return rows
    kept = slice(-max_length, None) if keep_end else slice(max_length)

    def cut(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        return {column: [ids[kept] for ids in values] for column, values in batch.items()}

    return rows.map(cut, batched=True)


def _restore_dtypes(attached: Sequence[tuple[torch.nn.Parameter, torch.Tensor]]) -> None:
    """Undo trl's recast of the adapter on a quantized base, which it does without a word.

    The adapter's dtype is what `adapter` made it: bfloat16 loses the small updates of AdamW.
    """
    for parameter, values in attached:
        if parameter.dtype != values.dtype:
            parameter.data = values.to(parameter.device)
