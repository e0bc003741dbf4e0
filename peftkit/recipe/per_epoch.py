"""Evaluations and checkpoints by the epoch: the training arguments that stand for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peftkit.plugins.machine import Chosen
from peftkit.recipe.schema import PerEpochSection
from peftkit.recipe.stated import Found, Stated

_NOUNS = {"evaluations": "eval", "saves": "save"}


def chosen_per_epoch(
    section: PerEpochSection, options: Mapping[str, Any], num_epochs: float
) -> list[Chosen]:
    """Choose the shares of all steps after which to evaluate and to save.

    Args:
        num_epochs: of the method, where its options say none.
    """
    epochs = float(options.get("num_train_epochs", num_epochs))
    chosen = []
    for name, noun in _NOUNS.items():
        times = getattr(section, name)
        if times is None:
            continue
        why = f"per_epoch.{name} is {times}"
        if times == 1:
            chosen.append(Chosen(f"{noun}_strategy", "epoch", why))
            continue
        # Trainers round the steps that a share stands for up: it is rounded down.
        share = min(math.floor(1e6 / (times * epochs)) / 1e6, 0.999999)
        chosen.append(Chosen(f"{noun}_strategy", "steps", why))
        chosen.append(Chosen(f"{noun}_steps", share, f"{why}: this share of all steps"))
    return chosen


def per_epoch(stated: Stated) -> Found:
    """Find what says otherwise how often to evaluate and to save."""
    section = stated.per_epoch
    if section is None:
        return
    steps = stated.options.get("max_steps", -1)
    if isinstance(steps, int) and steps > 0:
        why = "there are no epochs to count by: max_steps is stated"
        yield "per_epoch", why, f"write {stated.at('num_train_epochs')}"
    if section.evaluations and not stated.has_split("validation"):
        split = "write data.splits: {train: train, validation: 5%}"
        yield "per_epoch.evaluations", "needs a validation split", split
    for name, noun in _NOUNS.items():
        for option in (f"{noun}_strategy", f"{noun}_steps"):
            if getattr(section, name) is not None and option in stated.options:
                yield stated.at(option), f"contradicts per_epoch.{name}", "keep one of the two"
