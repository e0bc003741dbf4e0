"""Pairs of answers to train on, the method that does, and an adapter as training leaves it."""

from __future__ import annotations

from typing import Any

from peftkit_preferences.dpo import DPO
from peftkit_preferences.preference import Preference, PreferenceTask

PAIRS = (
    ("Name a colour.", "Blue.", "A table of rows."),
    ("Sort the keys by name, and say how.", "They are sorted.", "No"),
    ("Say yes.", "Yes, with pleasure, at once.", "Never."),
    ("What is a mean?", "A sum over a count.", "It is mean to ask such a thing of anybody."),
)


ROWS = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
QUIET = {"use_cpu": True, "bf16": False, "activation_checkpointing": False, "report_to": "none"}


def method(**options: Any) -> DPO:
    from trl import DPOConfig

    return DPO(DPOConfig(output_dir="unused", **{**QUIET, **options}))


def examples(**options: Any) -> list[Preference]:
    task = PreferenceTask(PreferenceTask.Config(**options))
    return [task.example(row) for row in ROWS]


def move(model: Any) -> None:
    """Give the adapter values as if it had been trained."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
