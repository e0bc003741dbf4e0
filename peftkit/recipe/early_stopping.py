"""Early stopping: the training arguments that it needs, and those that contradict it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.plugins.machine import Chosen
from peftkit.recipe.stated import Found, Stated


def best_kept(options: Mapping[str, Any]) -> list[Chosen]:
    """Choose what transformers' early stopping asks for: a metric, and the best checkpoint."""
    strategy = options.get("eval_strategy", "epoch")
    chosen = [
        Chosen("eval_strategy", "epoch", "early_stopping counts evaluations"),
        Chosen("save_strategy", strategy, "the best checkpoint is that of an evaluation"),
        Chosen("load_best_model_at_end", True, "early_stopping keeps the best checkpoint"),
    ]
    if strategy == "steps":
        steps = options.get("eval_steps")
        chosen.append(Chosen("save_steps", steps, "as eval_steps"))
    return chosen


def early_stopping(stated: Stated) -> Found:
    """Find training arguments under which nothing could stop early."""
    if not stated.stops_early:
        return
    if not stated.has_split("validation"):
        split = "write data.splits: {train: train, validation: 5%}"
        yield "early_stopping", "needs a validation split to watch", split
    if stated.says("eval_strategy", "no"):
        yield stated.at("eval_strategy"), "contradicts early_stopping", "delete it, or write epoch"
    if stated.says("load_best_model_at_end", False):
        yield stated.at("load_best_model_at_end"), "contradicts early_stopping", "delete it"
    if stated.says("save_strategy", "no"):
        why = "contradicts early_stopping, which keeps the best checkpoint"
        yield stated.at("save_strategy"), why, "delete it"
    if stated.says("eval_strategy", "steps") and "eval_steps" not in stated.options:
        why = "early_stopping counts evaluations, and nothing says how often they are"
        yield stated.at("eval_strategy"), why, f"write {stated.at('eval_steps')}: 50"
