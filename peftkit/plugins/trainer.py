"""What a trainer is made of, and how one of the stack is made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.plugins.parts import Task

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from peft import PeftModel
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )


@dataclass(frozen=True)
class Training:
    """Hold what a trainer is made of."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    validation: Dataset | None
    callbacks: Sequence[TrainerCallback]
    output_dir: Path
    """Where it writes checkpoints; the native config does not know it."""
    task: Task | None = None
    """That of the rows, whose metrics a method may reward."""
    reading: Callable[[type[Trainer]], type[Trainer]] | None = None
    """Makes a class one that reads rows in the same order wherever it begins, and in however many
    processes; None for transformers' own way."""


def make_trainer(
    trainer_class: type[Trainer], config: TrainingArguments, parts: Training, **native: Any
) -> Trainer:
    """Make a trainer that prints nothing itself; the method's own arguments stay as they are.

    So do the dtypes of what is trained: trl recasts an adapter on a quantized base to bfloat16,
    which loses the small updates of AdamW, and says nothing.

    Args:
        native: what else the class takes: a collator, an optimizer ...
    """
    from transformers import PrinterCallback

    args = copy.copy(config)
    args.output_dir = str(parts.output_dir)
    if parts.reading is not None:
        trainer_class = parts.reading(trainer_class)
    trained = [(p, p.data) for p in parts.model.parameters() if p.requires_grad]
    trainer = trainer_class(
        args=args,
        model=parts.model,
        processing_class=parts.tokenizer,
        train_dataset=parts.train,
        eval_dataset=parts.validation,
        callbacks=list(parts.callbacks),
        **native,
    )
    trainer.remove_callback(PrinterCallback)
    for parameter, values in trained:
        if parameter.dtype != values.dtype:
            parameter.data = values.to(parameter.device)
    return trainer
