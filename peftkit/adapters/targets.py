"""Whether the names in an adapter's config name something in the model; PEFT lets most pass."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftkit.adapters.experts import expert_parameters, is_asked, taken_for_stacks
from peftkit.adapters.names import (
    beside_text,
    endings,
    is_named,
    linear_modules,
    only_named_linear,
    read_past,
    recipe_key,
)
from peftkit.adapters.token_rows import open_head
from peftkit.errors import UsageError
from peftkit.system.checkpoint_files import PEFT_PREFIX

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_LOG = logging.getLogger("peftkit")
_KEYWORDS = ("all-linear", "dummy-target-modules")
_LAYER = re.compile(r"(?:^|.*?\.)[^.]*\.(\d+)\.")
"""PEFT's own rule: the first numbered segment of a module's name is its layer."""


def check_targets(config: Any, model: PreTrainedModel) -> None:
    """Refuse names, patterns and layers that match nothing in the model, all at once.

    PEFT raises only when nothing at all matches; a list of which half matches trains that half.

    Raises:
        UsageError: lists every entry without a match, the model's own names, and the nearest.
    """
    modules = [name for name, _ in model.named_modules() if name]
    parameters = [name for name, _ in model.named_parameters()]
    taken = taken_for_stacks(config, model)
    problems = [
        *(
            found
            for found in _unmatched(config, "target_modules", modules)
            if found[1] not in taken
        ),
        *_unmatched(config, "exclude_modules", modules),
        *_unmatched(config, "modules_to_save", modules, by_ending=True),
        *_unmatched(config, "feedforward_modules", modules),
        *_unmatched(config, "target_parameters", parameters),
        *_missing_layers(config, modules),
        *_missing_tokens(config, model),
    ]
    if not problems:
        return
    names, stacks = linear_names(model), expert_parameters(model)
    wrong = [entry for _, entry in problems]
    close = [m for entry in wrong for m in difflib.get_close_matches(entry, names, n=1)]
    meant = f"did you mean {', '.join(dict.fromkeys(close))}? " if close else ""
    listed: dict[str, list[str]] = {}
    for key, entry in problems:
        listed.setdefault(key, []).append(repr(entry))
    text = "; ".join(
        f"{recipe_key(config, key)}: {', '.join(entries)}" for key, entries in listed.items()
    )
    raise UsageError(
        f"{text} {'matches' if len(problems) == 1 else 'match'} nothing in {type(model).__name__}",
        hint=f"{meant}its linear modules are {', '.join(names)}"
        + (f"; its experts are target_parameters: [{', '.join(stacks)}]" if stacks else ""),
    )


def without_others(config: Any, model: PreTrainedModel, *, is_said: bool = True) -> None:
    """Keep `all-linear` to modules that an adapter changes, and refuse others that are named.

    Raises:
        UsageError: a target inherits from a linear layer and computes something else, or its
            weight is read past the module.
    """
    asked = getattr(config, "target_modules", None)
    if asked is None:
        return
    others, past = only_named_linear(model), read_past(model)
    if asked != "all-linear":
        _refuse_named(config, model, others, "computes more than a linear layer")
        _refuse_named(config, model, past, "gives its weight to a scan, past what wraps it")
        return
    beside = beside_text(model)
    if beside and is_said:
        _LOG.warning(
            "all-linear leaves out %s, which texts do not pass through; a list or a regular"
            " expression of target_modules adapts it",
            ", ".join(beside),
        )
    if past and is_said:
        _LOG.warning(
            "all-linear leaves out %s: the mixer reads its weight past an adapter on it",
            ", ".join(endings(past)),
        )
    _exclude(config, endings([*others, *past]), beside)


def _refuse_named(config: Any, model: PreTrainedModel, others: list[str], why: str) -> None:
    named = [name for name in others if is_asked(config.target_modules, name)]
    if named:
        raise UsageError(
            f"{recipe_key(config, 'target_modules')}: {', '.join(endings(named))} of"
            f" {type(model).__name__} is a {type(model.get_submodule(named[0])).__name__},"
            f" which {why}, so that no adapter fits it",
            hint=f"its linear modules are {', '.join(linear_names(model))}",
        )


def _exclude(config: Any, names: Sequence[str], parts: Sequence[str]) -> None:
    """Add names of modules, and whole parts of the model, to what is excluded."""
    given = config.exclude_modules
    if not isinstance(given, str) and not parts:
        config.exclude_modules = [*(given or ()), *names] or given
        return
    patterns = [f"(?:{given})"] if isinstance(given, str) else []
    listed = [*names, *(() if isinstance(given, str) else given or ())]
    patterns += [rf"(?:.*\.)?{re.escape(name)}" for name in listed]
    patterns += [rf"{re.escape(part)}(?:\..*)?" for part in parts]
    if patterns:
        config.exclude_modules = "|".join(patterns)


def linear_names(model: Any) -> list[str]:
    """List the last parts of the names of a model's linear modules, the output head excepted."""
    return endings(linear_modules(model))


def check_ranks(config: Any, attached: PeftModel) -> None:
    """Refuse rank patterns that match nothing, and a rank no target can use.

    Raises:
        UsageError: names the pattern, or the rank and the largest useful one.
    """
    targeted: Sequence[str] = [
        *getattr(attached.base_model, "targeted_module_names", ()),
        *getattr(attached.base_model, "targeted_parameter_names", ()),
    ]
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, key, None) or {}:
            # get_pattern_key of peft.utils.other reads the keys so.
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in targeted):
                raise UsageError(
                    f"{recipe_key(config, key)}: {pattern!r} matches none of {len(targeted)}"
                    " targeted modules",
                    hint=f"they end in {', '.join(endings(targeted))}",
                )
    if config.peft_type == "LORA":
        _check_lora_rank(config, attached)


def check_head(attached: PeftModel) -> None:
    """Refuse an adapter on a causal model's output head, which would not be trained.

    trl 1.16 multiplies hidden states by `lm_head.weight` itself, past whatever wraps the head.

    Raises:
        UsageError: says how the head can be trained.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    if attached.peft_config["default"].task_type != "CAUSAL_LM":
        return
    head = attached.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper) and head.original_module.bias is None:
        open_head(attached)
        return
    if not isinstance(head, BaseTunerLayer | TrainableTokensWrapper):
        return
    at = recipe_key(attached.peft_config["default"])
    if attached.get_base_model().config.get_text_config().tie_word_embeddings:
        raise UsageError(
            f"{at}: this adapter reaches the output head, which the base ties to its embedding, and"
            " trl's loss reads the head's own weight past it",
            hint="train the whole embedding instead: `lora: {modules_to_save: [embed_tokens]}`",
        )
    raise UsageError(
        f"{at}: this adapter is on the output head, and trl's loss reads the head's own weight"
        " past it",
        hint="remove the head from target_modules; modules_to_save trains it whole",
    )


def _check_lora_rank(config: Any, attached: PeftModel) -> None:
    """Compare each module's rank with its smaller side, above which rank adds nothing."""
    from peft.tuners.lora import LoraLayer

    layers = [
        (name.removeprefix(PEFT_PREFIX), module.r["default"], module)
        for name, module in attached.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.r
    ]
    sides = {name: min(m.in_features, m.out_features) for name, _, m in layers}
    too_large = [name for name, rank, _ in layers if rank > sides[name]]
    if layers and len(too_large) == len(layers):
        largest = max(sides.values())
        raise UsageError(
            f"{recipe_key(config, 'r')}: {config.r} is larger than the smaller side of every"
            " targeted module",
            hint=f"above {largest} rank adds parameters and nothing else; say r: {largest} or less",
        )
    if too_large:
        _LOG.warning(
            "r exceeds the smaller side of %d of %d targeted modules (%s): use rank_pattern",
            len(too_large),
            len(layers),
            ", ".join(endings(too_large)),
        )


def _unmatched(
    config: Any, key: str, names: Sequence[str], *, by_ending: bool = False
) -> list[tuple[str, str]]:
    """Return (key, entry) for every entry of a list or regular expression without a match."""
    wanted = getattr(config, key, None)
    if not wanted or (isinstance(wanted, str) and wanted in _KEYWORDS):
        return []
    if isinstance(wanted, str):
        try:
            matched = any(re.fullmatch(wanted, name) for name in names)
        except re.error as error:
            raise UsageError(
                f"{recipe_key(config, key)}: {wanted!r} is no regular expression: {error}",
                hint="a text is read as one; write a list to name modules",
            ) from None
        return [] if matched else [(key, wanted)]

    def matches(entry: str) -> bool:
        if by_ending:
            return any(name.endswith(entry) for name in names)
        return any(is_named(entry, name) for name in names)

    return [(key, entry) for entry in sorted(map(str, wanted)) if not matches(entry)]


def count_layers(config: Any, model: PreTrainedModel) -> None:
    """Give layers that are counted from the end (-1 is the last) their own numbers."""
    wanted = getattr(config, "layers_to_transform", None)
    if wanted is None:
        return
    layers = _layers([name for name, _ in model.named_modules()])
    num = 1 + max(layers, default=-1)
    asked = [wanted] if isinstance(wanted, int) else list(wanted)
    config.layers_to_transform = [layer + num if layer < 0 else layer for layer in asked]


def _layers(modules: Sequence[str]) -> set[int]:
    return {int(match.group(1)) for name in modules if (match := _LAYER.match(name + "."))}


def _missing_layers(config: Any, modules: Sequence[str]) -> list[tuple[str, str]]:
    """Return the layers that `layers_to_transform` asks for and the model does not have."""
    wanted = getattr(config, "layers_to_transform", None)
    if wanted is None:
        return []
    layers = _layers(modules)
    asked = [wanted] if isinstance(wanted, int) else list(wanted)
    return [("layers_to_transform", str(layer)) for layer in asked if layer not in layers]


def _missing_tokens(config: Any, model: PreTrainedModel) -> list[tuple[str, str]]:
    """Return token ids to be trained that lie outside the vocabulary."""
    embedding = model.get_input_embeddings()
    num_rows = getattr(embedding, "num_embeddings", None)
    found = []
    for key in ("token_indices", "trainable_token_indices"):
        indices = getattr(config, key, None) or ()
        rows = indices.values() if isinstance(indices, dict) else [indices]
        found += [
            (key, str(index))
            for row in rows
            for index in row
            if num_rows is not None and not 0 <= index < num_rows
        ]
    return found
