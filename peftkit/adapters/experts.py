"""Experts: weights stacked in one parameter, which PEFT adapts by names of an older layout."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peftkit.adapters.names import endings, is_named, recipe_key
from peftkit.errors import UsageError, first_line

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_LOG = logging.getLogger("peftkit")
_ALL_LINEAR = "all-linear"
_FUSED = "gate_up_proj"
"""The one stack that transformers fuses out of two modules, as PEFT knows them."""


def taken_for_stacks(config: Any, model: PreTrainedModel) -> set[str]:
    """Return the targets that name modules of experts which this model holds as stacks.

    Where transformers 5 fused the experts of transformers 4, PEFT takes the names of their modules
    (`gate_proj`, `w1`) for those of the stacks (`gate_up_proj`), with a rank pattern of its own.

    Raises:
        UsageError: of projections that are fused into one stack, only some are named.
    """
    asked = getattr(config, "target_modules", None)
    try:
        modules, _ = _converted(config, model, asked)
    except ValueError as error:
        raise UsageError(
            f"{recipe_key(config, 'target_modules')}: {first_line(error)}",
            hint="name them together, or the stack under target_parameters",
        ) from error
    if isinstance(asked, str):
        return {asked} - {str(modules)}
    parameters = [name for name, _ in model.named_parameters()]
    taken = set()
    for entry in set(asked or ()) - set(modules or ()):
        try:
            _, stacks = _converted(config, model, [entry])
        except ValueError:  # one of those that are fused, named beside the others
            stacks = {_FUSED}
        if any(is_named(stack, name) for stack in stacks for name in parameters):
            taken.add(entry)
    return taken


def _converted(config: Any, model: PreTrainedModel, asked: Any) -> tuple[Any, set[str]]:
    """Return the modules and the parameters that PEFT makes of some targets."""
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    copied = copy.deepcopy(config)
    copied.target_modules, before = asked, set(getattr(config, "target_parameters", None) or ())
    convert_peft_config_for_transformers(copied, model, None)
    after = set(getattr(copied, "target_parameters", None) or ())
    return copied.target_modules, after - before


def expert_parameters(model: Any) -> list[str]:
    """List the stacks of experts' weights, each by the shortest name that only stacks have."""
    found = dict.fromkeys(
        ".".join(name.split(".")[-2:])
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and "expert" in name
    )
    return list(found)


def check_reach(asked: Any, attached: PeftModel, linear: Iterable[str]) -> None:
    """Refuse what PEFT widened for a family of experts, and say what it left out.

    Args:
        asked: the config as the recipe has it.
        linear: names of the base's linear modules, before anything was attached.

    Raises:
        UsageError: modules or layers are adapted that were not asked for.
    """
    if getattr(asked, "target_modules", None) is None:
        return
    modules = frozenset(getattr(attached.base_model, "targeted_module_names", ()))
    parameters = frozenset(getattr(attached.base_model, "targeted_parameter_names", ()))
    _refuse_widened(asked, attached, modules, parameters)
    excluded = getattr(asked, "exclude_modules", None)
    wanted = {n for n in linear if is_asked(asked.target_modules, n) and not is_asked(excluded, n)}
    weights = {name.removesuffix(".weight") for name in parameters}
    missed = sorted(wanted - modules - weights)
    if parameters and missed and getattr(asked, "layers_to_transform", None) is None:
        _LOG.warning(
            "peft takes these names for the experts' alone, so %d linear modules that have them"
            " stay as they are (%s): target_parameters: [%s] adapts them too",
            len(missed),
            ", ".join(_apart(missed)),
            ", ".join(f"{name}.weight" for name in _apart(missed)),
        )
    stacks = expert_parameters(attached.get_base_model())
    if asked.target_modules == _ALL_LINEAR and stacks and not parameters:
        _LOG.warning(
            "all-linear reaches no expert of %s, whose weights are parameters: %s",
            type(attached.get_base_model()).__name__,
            f"lora's target_parameters: [{', '.join(stacks)}] adapts them",
        )


def check_loads_back(attached: PeftModel) -> None:
    """Refuse an adapter whose saved names PEFT turns into others when it loads them.

    PEFT renames what older versions of transformers saved; in some families the names that it
    saves today look as if they were old.

    Raises:
        UsageError: names the modules.
    """
    from peft import get_peft_model_state_dict
    from peft.utils.transformers_weight_conversion import (
        convert_peft_adapter_state_dict_for_transformers,
    )

    config, base = attached.peft_config["default"], attached.get_base_model()
    if config.peft_type != "LORA":
        return
    saved = get_peft_model_state_dict(attached, save_embedding_layers=False)
    bare = {key: tensor.to("meta") for key, tensor in saved.items() if ".lora_" in key}
    found = convert_peft_adapter_state_dict_for_transformers(base, config, bare)
    lost = sorted({key.partition(".lora_")[0] for key in set(bare) - set(found)})
    if lost:
        owners = list(dict.fromkeys(name.split(".")[-2] for name in lost))
        raise UsageError(
            f"{recipe_key(config, 'target_modules')}: peft could not load this adapter again: in"
            f" {type(base).__name__} it would take {', '.join(_apart(lost))} for modules of"
            " experts",
            hint=f"say exclude_modules: '.*({'|'.join(owners)}).*'",
        )


def _refuse_widened(
    asked: Any, attached: PeftModel, modules: frozenset[str], parameters: frozenset[str]
) -> None:
    at = recipe_key(asked, "target_modules")
    is_pattern = isinstance(asked.target_modules, str) and asked.target_modules != _ALL_LINEAR
    wide = sorted(n for n in modules if is_pattern and not is_asked(asked.target_modules, n))
    if wide and parameters:
        raise UsageError(
            f"{at}: for {type(attached.get_base_model()).__name__} peft takes this pattern for the"
            f" last parts of the names that it matches, so it would adapt {wide[0]} as well",
            hint="write a list of names, and the experts' parameters under target_parameters",
        )
    layers = getattr(asked, "layers_to_transform", None)
    if layers is None:
        return
    numbers = {str(n) for n in ([layers] if isinstance(layers, int) else layers)}
    outside = [name for name in sorted(parameters) if not numbers & set(name.split("."))]
    if outside:
        raise UsageError(
            f"{recipe_key(asked, 'layers_to_transform')}: peft adapts parameters in every layer,"
            f" so {outside[0]} would be adapted as well",
            hint="leave layers_to_transform out and name parameters with their layers:"
            " target_parameters: [layers.1.mlp.experts.down_proj]",
        )


def is_asked(target_modules: Any, name: str) -> bool:
    """Tell whether `target_modules` asks for a linear module."""
    if target_modules == _ALL_LINEAR:
        return True
    if isinstance(target_modules, str):
        return re.fullmatch(target_modules, name) is not None
    return any(is_named(entry, name) for entry in target_modules or ())


def _apart(names: list[str]) -> list[str]:
    """Return the last two parts of names: those of a dense layer and a shared expert differ."""
    return endings(names, num_parts=2)
