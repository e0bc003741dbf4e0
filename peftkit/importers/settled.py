"""What several tools take together and `check` refuses: which of the two counts, as there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.plugins.imported import Draft


def settle(draft: Draft) -> None:
    """Drop from the method's options what the tool would silently not use."""
    options: dict[str, Any] = draft.recipe.get("method", {}).get(draft.method, {})
    _length(draft, options)
    _evaluation(draft, options)
    _rest(draft, options)


def _drop(draft: Draft, options: dict[str, Any], name: str, why: str) -> None:
    if name in options:
        del options[name]
        draft.recall(f"method.{name}", why)


def _length(draft: Draft, options: dict[str, Any]) -> None:
    steps = options.get("max_steps")
    if isinstance(steps, int) and steps > 0:
        _drop(draft, options, "num_train_epochs", "max_steps counts, as there")
    elif "max_steps" in options:
        _drop(draft, options, "max_steps", "epochs count")
    warmup = options.get("warmup_steps")
    if options.get("lr_scheduler_type") == "constant" and warmup is not None:
        _drop(draft, options, "warmup_steps", "a constant rate has no warmup, there neither")
    elif not warmup and "warmup_steps" in options:
        _drop(draft, options, "warmup_steps", "no warmup, here neither")
    elif isinstance(steps, int) and isinstance(warmup, int) and 0 < steps <= warmup:
        draft.remarks[draft.spelled("method.warmup_steps")] = (
            f"check: {steps} steps never reach the rate"
        )


def _evaluation(draft: Draft, options: dict[str, Any]) -> None:
    if not _has_validation(draft.recipe.get("data", {})):
        for name in ("eval_strategy", "eval_steps", "load_best_model_at_end", "eval_on_start"):
            _drop(draft, options, name, "no rows are held out, there neither")
        if draft.recipe.pop("early_stopping", None):
            draft.recall("early_stopping.patience", "no rows are held out: it never stopped there")
    strategy = options.get("eval_strategy", "no")
    if strategy == "no":
        _drop(draft, options, "eval_steps", "nothing is evaluated while training, there neither")
        _drop(draft, options, "load_best_model_at_end", "it needs evaluations")
    if strategy == "steps":
        options.setdefault("eval_steps", options.get("logging_steps", 500))
    for noun in ("eval", "save", "logging"):
        kind = options.get(f"{noun}_strategy")
        if kind in ("epoch", "no", "best"):
            _drop(draft, options, f"{noun}_steps", f"{noun}_strategy {kind} counts, as there")
    _best(draft, options, strategy)


def _has_validation(data: Mapping[str, Any]) -> bool:
    source = data.get("source")
    parts = source if isinstance(source, list) else []
    splits = [data.get("splits", {}), *(part.get("splits", {}) for part in parts)]
    return any("validation" in one for one in splits)


def _best(draft: Draft, options: dict[str, Any], strategy: str) -> None:
    """Save where is evaluated, which keeping the best checkpoint asks for."""
    if "early_stopping" in draft.recipe:
        for name in ("load_best_model_at_end", "save_strategy", "save_steps"):
            _drop(draft, options, name, "early_stopping keeps the best checkpoint")
        if strategy == "no":
            options["eval_strategy"] = "epoch"
    elif options.get("load_best_model_at_end") and strategy != options.get("save_strategy"):
        options["save_strategy"] = strategy
        options.pop("save_steps", None)
        if strategy == "steps":
            options["save_steps"] = options["eval_steps"]


def _rest(draft: Draft, options: dict[str, Any]) -> None:
    if options.get("bf16"):
        _drop(draft, options, "fp16", "bf16 counts")
    if not options.get("gradient_checkpointing", True):
        _drop(draft, options, "gradient_checkpointing_kwargs", "nothing is recomputed")
    if not options.get("dataloader_num_workers"):
        for name in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            _drop(draft, options, name, "there are no workers")
