"""Make a native trainer over rows that are encoded, cut and packed already."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments


def make_trainer(  # noqa: PLR0913 - the parts of a training
    trainer_class: type[Trainer],
    config: TrainingArguments,
    train: Dataset,
    validation: Dataset | None,
    callbacks: Sequence[TrainerCallback],
    *,
    output_dir: Path,
    **native: Any,
) -> Trainer:
    """Make a trainer that prints nothing itself; the method's own arguments stay as they are.

    Args:
        native: what else the class takes: the model, a collator ...
    """
    from transformers import PrinterCallback

    args = copy.copy(config)
    args.output_dir = str(output_dir)
    trainer = trainer_class(
        args=args,
        train_dataset=train,
        eval_dataset=validation,
        callbacks=list(callbacks),
        **native,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
