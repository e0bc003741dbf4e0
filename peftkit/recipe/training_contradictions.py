"""Find training arguments that cannot both be meant."""

from __future__ import annotations

from collections.abc import Callable

from peftkit.recipe.early_stopping import early_stopping
from peftkit.recipe.kinds import show
from peftkit.recipe.optimizers import optimizer
from peftkit.recipe.per_epoch import per_epoch
from peftkit.recipe.stated import Found, Stated, is_count


def _precision(stated: Stated) -> Found:
    if stated.says("bf16") and stated.says("fp16"):
        yield stated.at("fp16"), "contradicts bf16", "keep one of the two"
    if stated.says("bf16_full_eval") and stated.says("fp16_full_eval"):
        yield stated.at("fp16_full_eval"), "contradicts bf16_full_eval", "keep one of the two"
    if stated.says("fp16") and stated.says("use_cpu"):
        yield stated.at("fp16"), "contradicts use_cpu: CPUs have no float16 autocast", "use bf16"
    old, new = "gradient_checkpointing", "activation_checkpointing"
    options = stated.options
    if old in options and new in options and options[old] != options[new]:
        yield stated.at(old), f"contradicts {new}, its newer name", f"keep {new}"
    for name in (old, new):
        if stated.says(name, False) and options.get(f"{name}_kwargs"):
            yield stated.at(f"{name}_kwargs"), f"is ignored when {name} is false", "delete it"


def _length_of_training(stated: Stated) -> Found:
    options = stated.options
    steps = options.get("max_steps")
    if "num_train_epochs" in options and is_count(steps) and steps > 0:
        yield (
            stated.at("max_steps"),
            f"would silently win over num_train_epochs {show(options['num_train_epochs'])}",
            "keep one of the two",
        )
    warmup = options.get("warmup_steps")
    if is_count(steps) and is_count(warmup) and 1 <= steps <= warmup:
        yield (
            stated.at("warmup_steps"),
            f"the learning rate is never reached in {steps} steps",
            f"write at most {max(1, steps // 10)}",
        )
    if stated.says("lr_scheduler_type", "constant") and warmup:
        yield (
            stated.at("warmup_steps"),
            "is ignored by lr_scheduler_type constant",
            "write lr_scheduler_type: constant_with_warmup",
        )


def _validation(stated: Stated) -> Found:
    options = stated.options
    default = "epoch" if stated.stops_early else "no"
    evaluates = options.get("eval_strategy", default) != "no"
    has_validation = stated.has_split("validation")
    wants = [name for name in ("eval_on_start", "load_best_model_at_end") if stated.says(name)]
    if "eval_strategy" in options and evaluates:
        wants.insert(0, "eval_strategy")
    if stated.says("save_strategy", "best"):
        wants.append("save_strategy")
    if wants and not has_validation:
        yield (
            stated.at(wants[0]),
            "needs a validation split",
            "write data.splits: {train: train, validation: 5%}"
            + ("" if evaluates or wants[0] == "eval_on_start" else " and eval_strategy: epoch"),
        )
        wants = []
    if evaluates:
        return
    for name in ("load_best_model_at_end", "save_strategy"):
        if name in wants:
            yield stated.at(name), "needs eval_strategy", "write eval_strategy: epoch"
    scheduler = options.get("lr_scheduler_type")
    if scheduler in ("reduce_lr_on_plateau", "greedy"):
        yield stated.at("lr_scheduler_type"), "needs eval_strategy", "write eval_strategy: epoch"
    if "eval_steps" in options and options["eval_steps"] is not None:
        yield stated.at("eval_steps"), "is ignored without eval_strategy", "eval_strategy: steps"


def _intervals(stated: Stated) -> Found:
    options = stated.options
    for noun in ("eval", "save", "logging"):
        strategy = options.get(f"{noun}_strategy")
        if strategy in ("epoch", "no", "best") and options.get(f"{noun}_steps") is not None:
            if noun == "eval" and strategy == "no":
                continue
            yield (
                stated.at(f"{noun}_steps"),
                f"is ignored when {noun}_strategy is {strategy}",
                f"write {noun}_strategy: steps",
            )
    if not stated.says("load_best_model_at_end"):
        return
    evaluates, saves = options.get("eval_strategy", "no"), options.get("save_strategy", "steps")
    if saves != "best" and evaluates not in ("no", saves):
        yield (
            stated.at("load_best_model_at_end"),
            f"needs save_strategy and eval_strategy to agree: {saves} and {evaluates}",
            f"write save_strategy: {evaluates}",
        )


def _loading(stated: Stated) -> Found:
    options = stated.options
    if options.get("dataloader_num_workers", 0) == 0:
        for name in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            if options.get(name):
                yield stated.at(name), "needs workers", "write dataloader_num_workers: 2"
    if stated.says("packing") and stated.says("max_length", None):
        yield stated.at("max_length"), "packing needs the length of a block", "write a number"


def _masking(stated: Stated) -> Found:
    shares = [stated.options.get(name) for name in ("mask_replace_prob", "random_replace_prob")]
    mask, random = (share if isinstance(share, int | float) else None for share in shares)
    total = (0.8 if mask is None else mask) + (0.1 if random is None else random)
    if (mask, random) != (None, None) and total > 1:
        name = "random_replace_prob" if mask is None else "mask_replace_prob"
        yield (
            stated.at(name),
            f"masked tokens and random ones are {total:g} of those that are predicted",
            "mask_replace_prob and random_replace_prob are 1 together at most",
        )


RULES: tuple[Callable[[Stated], Found], ...] = (
    _precision,
    _length_of_training,
    early_stopping,
    per_epoch,
    optimizer,
    _validation,
    _intervals,
    _loading,
    _masking,
)
