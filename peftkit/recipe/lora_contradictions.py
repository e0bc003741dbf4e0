"""Find options of LoRA that cannot both be meant, or that no run can follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.recipe.stated import Found, Stated

_ALL = ("all", "linear", "all_linear", "all linear", "all-linear-layers", "*")


def _targets(stated: Stated) -> Found:
    """Find other tools' words for every linear layer, which PEFT reads as regular expressions."""
    choice = stated.adapter.choice if stated.adapter else None
    if choice is not None and choice.options.get("target_modules") in _ALL:
        yield (
            f"adapter.{choice.name}.target_modules",
            f"{choice.options['target_modules']!r} is read as a regular expression of names",
            "write target_modules: all-linear",
        )


def _lora(stated: Stated) -> Found:
    choice = stated.adapter.choice if stated.adapter else None
    if choice is None or choice.name not in ("lora", "adalora"):
        return
    options, at = choice.options, f"adapter.{choice.name}"
    yield from _start(stated, options, at)
    is_text = isinstance(options.get("target_modules"), str)
    if options.get("layers_to_transform") is not None and is_text:
        yield (
            f"{at}.layers_to_transform",
            "needs target_modules as a list",
            "e.g. target_modules: [q_proj, v_proj]",
        )
    if options.get("layers_pattern") and options.get("layers_to_transform") is None:
        yield f"{at}.layers_pattern", "needs layers_to_transform", "name the layers' numbers"
    if options.get("use_dora") is True and options.get("lora_bias") is True:
        yield f"{at}.lora_bias", "contradicts use_dora", "keep one of the two"


def _start(stated: Stated, options: Mapping[str, Any], at: str) -> Found:
    """Look at how the adapter's first weights are made."""
    init = options.get("init_lora_weights", True)
    if isinstance(init, str) and init.startswith("pissa_niter"):
        # Its fast SVD starts at random, and loading the adapter makes the base's rest anew.
        yield (
            f"{at}.init_lora_weights",
            f"{init} starts at random, also when the adapter is loaded: it would not be the one"
            " that was trained",
            "write pissa",
        )
    if options.get("loftq_config") and init != "loftq":
        yield (
            f"{at}.loftq_config",
            "is ignored unless init_lora_weights is loftq",
            "write init_lora_weights: loftq",
        )
    for name in ("eva", "corda", "lora_ga"):
        # PEFT makes a plain LoRA of eva, without a word, where nobody has collected them.
        if init == name:
            yield (
                f"{at}.init_lora_weights",
                f"{name} is made from activations or gradients of the data, which no run collects",
                "write pissa or olora, which are made from the weights",
            )
        elif options.get(f"{name}_config"):
            yield (
                f"{at}.{name}_config",
                f"is ignored unless init_lora_weights is {name}",
                "delete it",
            )
    if init == "loftq":
        if stated.model and stated.model.quantize:
            yield (
                f"{at}.init_lora_weights",
                "loftq quantizes the base itself and needs full-precision weights",
                "delete model.quantize",
            )
        if not options.get("loftq_config"):
            yield (
                f"{at}.init_lora_weights",
                "loftq needs loftq_config",
                "loftq_config: {loftq_bits: 4}",
            )


RULES = (_targets, _lora)
