"""Supervised fine-tuning of a causal language model through trl's SFTTrainer."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, UsageError
from peftkit.plugins import Conversation, Decision, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
    from trl import SFTConfig

    from peftkit.plugins import Machine

_HUB = "train first; then upload the run's adapter folder with `hf upload`"
_LABELS = "data.task: peftkit encodes the rows and sets the labels itself"
_CHECKPOINTS = "nothing: peftkit's checkpoints always resume with the same command"

OWNED: Mapping[str, str] = {
    "output_dir": "`peftkit run --out DIR`, or `name:`",
    "run_name": "`name:`",
    "resume_from_checkpoint": "the same `peftkit run` command again: it resumes by itself",
    "enable_jit_checkpoint": "nothing: the first SIGINT, SIGTERM or SIGHUP writes a checkpoint",
    "save_only_model": _CHECKPOINTS,
    "restore_callback_states_from_checkpoint": _CHECKPOINTS,
    "model_init_kwargs": "the keys of `model:`",
    "trust_remote_code": "model.trust_remote_code",
    "chat_template_path": "model.chat_template",
    "eos_token": "a tokenizer whose end token is right: the chat template must write it",
    "pad_token": "a tokenizer with a padding token; peftkit picks one where it is missing",
    "dataset_text_field": "data.task: {text: {text: COLUMN}}",
    "dataset_num_proc": "nothing: rows are encoded in batches before training",
    "dataset_kwargs": _LABELS,
    "completion_only_loss": _LABELS,
    "assistant_only_loss": _LABELS,
    "remove_unused_columns": _LABELS,
    "label_names": _LABELS,
    "eval_packing": "method.sft.packing, which packs every split",
    "do_train": "`peftkit run`",
    "do_eval": "method.sft.eval_strategy",
    "do_predict": "`peftkit evaluate` or `peftkit generate`",
    "disable_tqdm": "nothing: peftkit shows its own bar, or plain lines without a terminal",
    "logging_nan_inf_filter": "nothing: a loss that is not a number stops the run",
    "push_to_hub": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
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
            *_precision(options, dtype=dtype, device=device, machine=machine),
            *_device(device),
            *_logging(options),
        ]
        stated = set(options)
        if "gradient_checkpointing" in stated:  # the older name of the same option
            stated.add("activation_checkpointing")
        return [
            Decision(f"method.sft.{key}", value, reason)
            for key, value, reason in chosen
            if key not in stated
        ]

    def encode(
        self, example: Conversation | Text, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, list[int]]:
        """Return `input_ids` and `labels` (-100 where not trained), not yet truncated."""
        from peftkit.masks import encode_conversation, encode_text

        if isinstance(example, Text):
            return encode_text(example.text, tokenizer)
        return encode_conversation(example.messages, tokenizer)

    def encode_many(
        self, examples: Sequence[Conversation | Text], tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, list[int]] | DataError]:
        """Encode many examples at once, which uses all cores; a row's error stands in its place."""
        from peftkit.masks import encode_examples

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
        from transformers import PrinterCallback
        from trl import SFTTrainer

        args = copy.copy(self.config)
        args.output_dir = str(output_dir)
        if args.padding_free and not args.packing:
            args.max_length = None  # trl refuses a length it would not enforce; arrange did
        attached = [(p, p.data) for p in model.parameters() if p.requires_grad]
        try:
            trainer = SFTTrainer(
                model=model,
                args=args,
                train_dataset=train,
                eval_dataset=validation,
                processing_class=tokenizer,
                callbacks=list(callbacks),
            )
        except ValueError as error:
            raise UsageError(
                f"trl's SFTTrainer refuses method.sft with this model and adapter: {error}"
            ) from error
        _restore_dtypes(attached)
        trainer.remove_callback(PrinterCallback)
        if len(trainer.train_dataset) != len(train):
            raise UsageError(
                f"trl kept {len(trainer.train_dataset)} of {len(train)} training rows",
                hint="this trl prepares rows although it was told not to; install the tested one",
            )
        return trainer


def _precision(
    options: Mapping[str, Any], *, dtype: str, device: str, machine: Machine
) -> list[tuple[str, Any, str]]:
    """Choose mixed precision: trl's default is bf16 whatever `model.dtype` says."""
    if "bf16" in options or "fp16" in options:
        return []
    if dtype == "float32":
        return [
            ("bf16", False, "model.dtype is float32; trl's default would compute in bfloat16"),
            ("fp16", False, "model.dtype is float32"),
        ]
    if device == "cpu":
        why = "a CPU computes in the weights' own dtype; autocast would cast each of them anew"
        return [("bf16", False, why), ("fp16", False, why)]
    if dtype == "float16":
        why = "model.dtype is float16: the adapter stays float32 and its loss is scaled"
        return [("fp16", True, why), ("bf16", False, why)]
    if machine.supports_bfloat16:
        return [("bf16", True, f"{machine.name} computes in bfloat16")]
    why = f"{machine.name} has no bfloat16 arithmetic"
    return [("bf16", False, why), ("fp16", False, why)]


def _device(device: str) -> list[tuple[str, Any, str]]:
    """Choose what depends on where the model sits."""
    if device == "cpu":
        return [
            ("use_cpu", True, "the run is on the CPU; trl raises on bf16 there unless told"),
            ("activation_checkpointing", False, "recomputing costs time, resident memory is ample"),
            ("dataloader_pin_memory", False, "pinned pages only speed up copies to a device"),
        ]
    return [("activation_checkpointing", True, "trl's default: a third more time, far less memory")]


def _logging(options: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Choose how often the run is logged and saved, in shares of its length."""
    is_flat = options.get("packing") or options.get("padding_free")
    chosen: list[tuple[str, Any, str]] = []
    if options.get("logging_strategy", "steps") == "steps":
        why = "200 points on the loss curve, whatever the run's length"
        chosen.append(("logging_steps", 0.005, why))
    if options.get("save_strategy", "steps") == "steps":
        chosen.append(("save_steps", 0.1, "a hard kill loses a tenth of the run at most"))
    return [
        *chosen,
        ("save_total_limit", 2, "the newest checkpoint, and one to fall back on"),
        (
            "include_num_input_tokens_seen",
            "all" if is_flat else "non_padding",
            "tokens per second count real tokens, and go on counting after a resume",
        ),
        ("dataset_kwargs", {"skip_prepare_dataset": True}, OWNED["dataset_kwargs"]),
        ("disable_tqdm", True, "peftkit shows its own bar"),
        ("logging_nan_inf_filter", False, "transformers would show a lost loss as 0.0"),
    ]


def _truncate(rows: Dataset, max_length: int, *, keep_end: bool) -> Dataset:
    """Cut both columns of rows that are too long; return the same rows when none is."""
    import pyarrow.compute

    longest = pyarrow.compute.max(
        pyarrow.compute.list_value_length(rows.with_format("arrow")["input_ids"][:])
    ).as_py()
    if longest is None or longest <= max_length:
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
