"""Construct every native object a recipe names, before any weight is read.

What the gate cannot know without the classes themselves, upstream's constructors say here; their
errors come back with the recipe's file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import PeftkitError, RecipeError
from peftkit.plugins import Adapter, Decision, Machine, Method, ModelKind, Source, Task, find
from peftkit.plugins.machine import decided
from peftkit.recipe.early_stopping import best_kept
from peftkit.recipe.kinds import Kind
from peftkit.recipe.packed_weights import refuse_packed
from peftkit.recipe.per_epoch import chosen_per_epoch
from peftkit.recipe.plain_data import plain_data
from peftkit.recipe.quantization import decide_quantization
from peftkit.recipe.row_contradictions import check_limits
from peftkit.recipe.schema import Choice, Part, Recipe
from peftkit.recipe.signatures import (
    Signature,
    load_class,
    signature_of,
    to_plain,
)
from peftkit.recipe.speed import settle_speed
from peftkit.recipe.stack_needs import find_needs
from peftkit.recipe.strict import Gate, kind_of
from peftkit.recipe.tables import RECORDED, owned_by
from peftkit.recipe.upstream_hints import caught_hints, valid_generation
from peftkit.recipe.yaml_file import dump_yaml, join, parse

if TYPE_CHECKING:
    from peftkit.plugins.quantizer import Quantizer

UPSTREAM_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ImportError,
    RuntimeError,
    OSError,
)
"""What constructors of the stack raise for values they refuse; anything else is a bug."""


@dataclass(frozen=True)
class BuiltPart:
    """Hold one source of rows with its task."""

    part: Part
    source: Source
    task: Task


@dataclass(frozen=True)
class Built:
    """Hold a recipe with every object it names constructed."""

    recipe: Recipe
    parts: tuple[BuiltPart, ...]
    """The sources of its rows, each with its task."""
    source: Source
    """The one whose rows are scored, or the first."""
    task: Task
    """Its task, by which answers are scored."""
    method: Method
    adapter: Adapter | None
    """None when the recipe continues an existing adapter."""
    quantizer: Quantizer | None
    """None for a base that is held as it is."""
    tokenizer_trainer: Choice | None
    """`model.tokenizer`, for a model from scratch."""
    decisions: tuple[Decision, ...]
    """Native options that peftkit chose, each with its reason."""
    resolved: dict[str, Any]
    """The whole recipe as plain data, decisions and the defaults that matter filled in."""
    hints: tuple[str, ...] = ()
    """What upstream says of options that it will drop, each with its key."""


def build(recipe: Recipe, machine: Machine, *, is_here: bool = True, trains: bool = True) -> Built:
    """Construct a checked recipe's objects for this machine.

    Args:
        is_here: False for a machine that is only planned for; upstream refuses the arguments of
            a device that is not there unless they say `use_cpu`.
        trains: False for a run that has trained, maybe elsewhere: what only training needs of
            packages and devices is not asked for.

    Raises:
        RecipeError: upstream refuses values; all sections are tried, each error at its key.
    """
    builder = _Builder(recipe)
    method_class = find("methods", recipe.method.name)
    decisions = decide(recipe, machine)
    arguments: dict[str, Any] = {**recipe.method.options, **_chosen("method.", decisions)}
    if isinstance(method_class.Config, str):
        arguments["output_dir"] = recipe.name
    if not is_here and "use_cpu" in signature_of(method_class.Config).options:
        arguments["use_cpu"] = True
    parts = builder.parts()
    method = builder.plugin("methods", "method", Choice(recipe.method.name, arguments))
    adapter = builder.adapter(method_class.kind)
    quantizer = builder.quantizer(_chosen("model.quantize.", decisions))
    refuse_packed(builder.gate, recipe, adapter, quantizer)
    check_limits(builder.gate, recipe, method)
    settle_speed(recipe, method, adapter)
    builder.generation()
    if trains:
        builder.check_stack("cpu" if recipe.method.options.get("use_cpu") else machine.device)
    builder.raise_problems()
    main = parts[recipe.data.parts.index(recipe.data.main_part(recipe.scoring.split))]
    return Built(
        recipe=recipe,
        parts=parts,
        source=main.source,
        task=main.task,
        method=method,
        adapter=adapter,
        quantizer=quantizer,
        tokenizer_trainer=recipe.model.tokenizer,
        decisions=decisions,
        resolved=_resolve(recipe, decisions, builder.configs),
        hints=tuple(builder.hints),
    )


def decide(recipe: Recipe, machine: Machine) -> tuple[Decision, ...]:
    """Choose the native options that a recipe leaves to the machine: the adapter's choices win."""
    name, options = recipe.method.name, recipe.method.options
    method = find("methods", name)
    chosen = method.decide(options, dtype=recipe.model.dtype, machine=machine)
    made = {d.key: d for d in decided(f"method.{name}", chosen, options)}
    if recipe.per_epoch is not None:
        epochs = signature_of(method.Config).options["num_train_epochs"].default
        kept = chosen_per_epoch(recipe.per_epoch, options, epochs)
        made.update({d.key: d for d in decided(f"method.{name}", kept, options)})
        options = {**options, **{one.option: one.value for one in kept}}
    if recipe.early_stopping is not None:
        made.update({d.key: d for d in decided(f"method.{name}", best_kept(options), options)})
    choice = recipe.adapter.choice
    adapter = find("adapters", choice.name) if choice else None
    if adapter is not None:
        made.update({d.key: d for d in adapter.decide(name, options)})
    return (*made.values(), *decide_quantization(recipe.model, method.kind))


def _chosen(section: str, decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return what was decided of one section, by option."""
    return {d.key.rpartition(".")[2]: d.value for d in decisions if d.key.startswith(section)}


class _Builder:
    """Construct section by section, gathering what upstream refuses."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        overridden = {override.partition("=")[0] for override in recipe.overrides}
        self.gate = Gate(str(recipe.file), recipe.lines, overridden)
        self.configs: dict[str, Any] = {}
        """Section -> its built config."""
        self.hints: list[str] = []

    def plugin(self, group: str, key: str, choice: Choice) -> Any:
        """Construct a plugin with its config; None when either is refused."""
        plugin = find(group, choice.name)
        path = join(key, choice.name)
        config = self.config(path, plugin.Config, choice.options)
        if config is _FAILED:
            return None
        self.configs[key] = config
        return self._try(path, lambda: plugin(config), choice.options)

    def parts(self) -> tuple[BuiltPart, ...]:
        """Construct every source with its task."""
        return tuple(
            BuiltPart(
                part,
                self.plugin("sources", part.key, part.source),
                self.plugin("tasks", part.task_key, part.task),
            )
            for part in self.recipe.data.parts
        )

    def config(self, path: str, reference: str | type | None, options: Mapping[str, Any]) -> Any:
        """Construct a config of ours or a native one; `_FAILED` when it is refused."""
        if reference is None:
            return None
        return self._try(path, lambda: construct(reference, options), options)

    def adapter(self, kind: ModelKind) -> Any:
        """Construct the adapter; None for one that is continued."""
        section = self.recipe.adapter
        if section.is_full:
            return find("adapters", "full")(section.train)
        if section.choice is None:
            return None
        plugin = find("adapters", section.choice.name)
        options = dict(section.choice.options)
        if isinstance(plugin.Config, str) and "task_type" in signature_of(plugin.Config).options:
            options["task_type"] = kind.task_type
        return self.plugin("adapters", "adapter", Choice(section.choice.name, options))

    def quantizer(self, chosen: Mapping[str, Any]) -> Any:
        """Construct the quantizer; None where there is none."""
        choice = self.recipe.model.quantize
        if choice is None:
            return None
        options = {**choice.options, **chosen}
        return self.plugin("quantizers", "model.quantize", Choice(choice.name, options))

    def generation(self) -> None:
        """Let transformers judge how answers are generated, long before any is."""
        options = dict(self.recipe.scoring.generation)
        if options:
            kept = {"max_new_tokens": 64, **options}
            self._try("evaluate.generation", lambda: valid_generation(kept), options)

    def check_stack(self, device: str) -> None:
        """Refuse what the stack would only once weights are read."""
        for problem in find_needs(self.recipe, self.configs.get("method"), device):
            self.gate.refuse(*problem)

    def _try(self, path: str, make: Any, options: Mapping[str, Any]) -> Any:
        try:
            with caught_hints(path, options, self.hints):
                return make()
        except PeftkitError as error:
            self.gate.refuse(blame_option(path, error.message, options), error.message, error.hint)
        except UPSTREAM_ERRORS as error:
            text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
            self.gate.refuse(blame_option(path, text, options), text)
        return _FAILED

    def raise_problems(self) -> None:
        """Raise what was gathered, if anything was."""
        if self.gate.problems:
            raise RecipeError(str(self.recipe.file), self.gate.sorted_problems())


_FAILED = object()


def blame_option(path: str, message: str, options: Mapping[str, Any]) -> str:
    """Return the key that an upstream message names first, or the section's."""
    found = [
        (match.start(), name)
        for name in options
        if (match := re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message))
    ]
    return join(path, min(found)[1]) if found else path


def construct(reference: str | type, options: Mapping[str, Any]) -> Any:
    """Construct a config of ours or a native one from checked plain options."""
    cls = load_class(reference) if isinstance(reference, str) else reference
    signature = signature_of(reference)
    return cls(**{name: _native(value, signature, name) for name, value in options.items()})


def _native(value: Any, signature: Signature, name: str) -> Any:
    option = signature.options.get(name)
    return value if option is None else _convert(value, kind_of(signature, option))


def _convert(value: Any, kind: Kind) -> Any:
    """Turn nested mappings into their configs, lists into tuples and text into paths, as hinted."""
    branches = kind.items if kind.name == "union" else (kind,)
    for branch in branches:
        if isinstance(value, Mapping):
            if branch.name == "record":
                return construct(branch.record, value)
            if branch.name == "mapping":
                return {key: _convert(item, branch.items[0]) for key, item in value.items()}
        if isinstance(value, list):
            if branch.name == "list":
                return [_convert(item, branch.items[0]) for item in value]
            if branch.name == "tuple" and len(value) == len(branch.items):
                pairs = zip(value, branch.items, strict=True)
                return tuple(_convert(item, member) for item, member in pairs)
    names = {branch.name for branch in branches}
    return (
        Path(value) if isinstance(value, str) and "path" in names and "str" not in names else value
    )


def _resolve(
    recipe: Recipe, decisions: tuple[Decision, ...], configs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the recipe as plain data, in the order of its sections."""
    data = plain_data(recipe.data, configs)
    arguments = configs["method"]
    owned = owned_by("methods", find("methods", recipe.method.name))
    known = [name for name in RECORDED if hasattr(arguments, name) and name not in owned]
    method = {name: to_plain(getattr(arguments, name)) for name in known}
    method.update({key: to_plain(value) for key, value in _chosen("method.", decisions).items()})
    method.update(recipe.method.options)
    resolved = {
        "name": recipe.name,
        "model": _plain_model(recipe, _chosen("model.quantize.", decisions)),
        "data": data,
        "adapter": _plain_adapter(recipe),
        "method": {recipe.method.name: dict(sorted(method.items()))},
        "memory": {"budget": None}
        if recipe.memory.budget_bytes is None
        else {"budget": f"{recipe.memory.budget_bytes / (1 << 30):.10g} GiB"},
        "speed": _plain(recipe.speed),
        "evaluate": False if recipe.evaluate is None else _plain(recipe.evaluate),
    }
    for name in ("early_stopping", "stop_above", "per_epoch"):
        if (section := getattr(recipe, name)) is not None:
            resolved[name] = _plain(section)
    return dict(_plain(resolved))


def _plain_model(recipe: Recipe, quantize: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for item in fields(recipe.model):
        value = getattr(recipe.model, item.name)
        if isinstance(value, Choice):
            chosen = quantize if item.name == "quantize" else {}
            options = {**value.options, **chosen}
            value = options if value.name == "path" else {value.name: options}
        if value is not None and value not in ([], {}):
            plain[item.name] = value
    return plain


def _plain_adapter(recipe: Recipe) -> Any:
    section = recipe.adapter
    if section.is_full:
        return {"full": {"train": list(section.train)}} if section.train else "full"
    if section.choice is None:
        return {"from": section.continue_from}
    return {section.choice.name: section.choice.options}


def _plain(value: Any) -> Any:
    try:
        return to_plain(value)
    except TypeError:
        return repr(value)


def dump_resolved(built: Built) -> str:
    """Write the resolved recipe as YAML, each decision with its reason beside it."""
    decisions = [
        {"key": d.key, "value": _plain(d.value), "reason": d.reason} for d in built.decisions
    ]
    document = {**built.resolved, "decisions": decisions}
    text = dump_yaml(document)
    places = parse(text, "resolved.yaml").lines
    lines = text.splitlines()
    for decision in built.decisions:
        line = places.get(decision.key)
        if line is not None:
            lines[line - 1] += f"  # {decision.reason}"
    return "\n".join(lines) + "\n"
