"""Read each section of a recipe through the gate, into the nouns of `schema`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftkit.errors import UsageError
from peftkit.plugins import find, plugin_names
from peftkit.recipe.kinds import ANY, Kind, show
from peftkit.recipe.schema import (
    AdapterSection,
    AuditSection,
    BpeTokenizer,
    Choice,
    DataSection,
    EvaluateSection,
    MemorySection,
    ModelSection,
    WordPieceTokenizer,
)
from peftkit.recipe.signatures import (
    Option,
    Signature,
    model_config_classes,
    signature_of,
)
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.tables import OWNED, owned_by
from peftkit.recipe.yaml_file import join

SECTIONS = {
    "name": "names the run directory, runs/NAME; the file's name when absent",
    "model": "which base model is loaded and how",
    "data": "where rows come from, how they are split and what they mean",
    "adapter": "what is trained: a PEFT method, `from: PATH`, or the word full",
    "method": "how it is trained",
    "memory": "a bound on memory",
    "evaluate": "what is scored after training; nothing when absent or false",
}
REQUIRED = ("model", "data", "adapter", "method")
SPLITS = ("train", "validation", "test")
TOKENIZERS = {"bpe": BpeTokenizer, "wordpiece": WordPieceTokenizer}
UNITS = {
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)")


def read_sections(gate: Gate, data: Mapping[str, Any]) -> dict[str, Any]:
    """Check and read every section; one that is missing or unreadable is None."""
    for key in data:
        if key not in SECTIONS:
            gate.refuse_unknown(key, key, RECIPE)
    for key in REQUIRED:
        if key not in data:
            gate.require("", key, "a recipe requires this section", SECTIONS[key])
    return {
        "name": _read_name(gate, data.get("name", Path(gate.file).stem)),
        "model": _read_model(gate, data.get("model", {}) if "model" in data else None),
        "data": _read_data(gate, data["data"]) if "data" in data else None,
        "adapter": _read_adapter(gate, data["adapter"]) if "adapter" in data else None,
        "method": _read_method(gate, data["method"]) if "method" in data else None,
        "memory": _read_memory(gate, data.get("memory")),
        "evaluate": _read_evaluate(gate, data.get("evaluate")),
    }


RECIPE = Signature(
    "peftkit:Recipe",
    {
        name: Option(name, ANY, is_required=name in REQUIRED, doc=doc)
        for name, doc in SECTIONS.items()
    },
)


def _read_name(gate: Gate, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        gate.refuse(
            "name",
            f"names the folder runs/NAME, got {show(value)}",
            "use letters, digits, dots, dashes and underscores",
        )
    return str(value)


def pick(gate: Gate, key: str, value: Any, noun: str) -> Choice | None:
    """Read a one-key mapping: the plugin's name and its options."""
    if isinstance(value, str):
        gate.refuse(key, f"expected a one-key mapping, got {value!r}", f"write {{{value}: {{}}}}")
        return None
    if not isinstance(value, Mapping) or len(value) != 1:
        names = list(value) if isinstance(value, Mapping) else []
        added = [name for name in names if join(key, name) not in gate.lines]
        if len(names) > 1 and added:
            gate.refuse_override(
                join(key, added[0]),
                f"{key} has {', '.join(value)}, and takes one {noun}",
                f"replace it: {key}={{{added[0]}: {{...}}}}",
            )
            return None
        got = ", ".join(names) or show(value)
        hint = "keep one of them" if names else None
        gate.refuse(key, f"expected a mapping with one key, the {noun}'s name, got {got}", hint)
        return None
    ((name, options),) = value.items()
    return Choice(name, {} if options is None else options)


def _check_plugin(gate: Gate, key: str, value: Any, group: str) -> Choice | None:
    """Check a plugin's options against its Config; return them with absolute paths."""
    noun = group.removesuffix("s")
    choice = pick(gate, key, value, noun)
    if choice is None:
        return None
    path = join(key, choice.name)
    known = plugin_names(group)
    if choice.name not in known:
        suggestion = suggest(choice.name, known) or f"the {group} are {', '.join(known)}"
        gate.refuse(path, f"there is no {noun} {choice.name!r}", suggestion)
        return None
    try:
        plugin = find(group, choice.name)
        signature = None if plugin.Config is None else signature_of(plugin.Config)
    except UsageError as error:
        gate.refuse(path, error.message, error.hint)
        return None
    if signature is None:
        if choice.options:
            gate.refuse(path, f"{choice.name} takes no options", "write the bare word")
        return choice
    gate.elsewhere[path] = tuple(signature.options)
    options = gate.check_options(path, choice.options, signature, owned=owned_by(group, plugin))
    return Choice(choice.name, _absolute(gate, path, options, signature))


def _absolute(
    gate: Gate, path: str, options: Mapping[str, Any], signature: Signature
) -> dict[str, Any]:
    return {
        name: gate.resolve_paths(join(path, name), value, signature.options[name].kind)
        for name, value in options.items()
    }


def _check_own(
    gate: Gate, key: str, value: Any, cls: type, skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Check one of our own sections against its dataclass."""
    if value is None:
        value = {}
    signature = signature_of(cls)
    gate.elsewhere[key] = tuple(signature.options)
    return gate.check_options(key, value, signature, skip=skip)


def _read_model(gate: Gate, value: Any) -> ModelSection | None:
    if value is None:
        return None
    skip = ("config", "tokenizer", "quantize")
    options = _check_own(gate, "model", value, ModelSection, skip)
    if options.get("quantize") is not None:
        options["quantize"] = _check_plugin(
            gate, "model.quantize", options["quantize"], "quantizers"
        )
    if options.get("config") is not None:
        options["config"] = _read_config(gate, options["config"])
    if options.get("tokenizer") is not None:
        options["tokenizer"] = _read_tokenizer(gate, options["tokenizer"])
    if isinstance(options.get("chat_template"), str):
        options["chat_template"] = gate.resolve_path(
            "model.chat_template", options["chat_template"], "file"
        )
    if isinstance(options.get("path"), str):
        options["path"] = _read_model_path(gate, options["path"])
    return ModelSection(**options)


def _read_model_path(gate: Gate, text: str) -> str:
    if text.startswith("embedded:"):
        from peftkit import embedded

        name = text.removeprefix("embedded:")
        known = embedded.names()
        if name not in known:
            gate.refuse(
                "model.path",
                f"no embedded model is called {name!r}",
                suggest(name, known) or f"they are {', '.join(known)}",
            )
        return text
    looks_local = text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text
    if looks_local or (gate.folder / text).is_dir():
        return gate.resolve_path("model.path", text, "model folder")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text):
        gate.refuse("model.path", f"{text!r} is neither a Hub id nor a folder", "e.g. org/name")
    return text


def _read_config(gate: Gate, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        gate.refuse("model.config", f"expected a mapping, got {show(value)}")
        return {}
    classes = model_config_classes()
    kind = value.get("model_type")
    if not isinstance(kind, str) or kind not in classes:
        known = list(classes)
        suggestion = suggest(kind, known) if isinstance(kind, str) else "write model_type: llama"
        got = f"got {show(kind)}" if "model_type" in value else "it is missing"
        gate.refuse(
            "model.config.model_type", f"expected a transformers model type, {got}", suggestion
        )
        return dict(value)
    options = {name: item for name, item in value.items() if name != "model_type"}
    signature = signature_of(classes[kind])
    gate.check_options("model.config", options, signature, owned=OWNED["config"])
    return dict(value)


def _read_tokenizer(gate: Gate, value: Any) -> Choice | None:
    choice = pick(gate, "model.tokenizer", value, "tokenizer")
    if choice is None:
        return None
    path = join("model.tokenizer", choice.name)
    if choice.name not in TOKENIZERS:
        gate.refuse(path, f"there is no tokenizer {choice.name!r}", f"use {', '.join(TOKENIZERS)}")
        return choice
    chosen = TOKENIZERS[choice.name]
    options = _check_own(gate, path, choice.options, chosen)
    defaults = {one.name: one.default for one in dataclasses.fields(chosen)}
    return Choice(choice.name, {**defaults, **options})


def _read_data(gate: Gate, value: Any) -> DataSection | None:
    options = _check_own(gate, "data", value, DataSection, ("source", "splits", "task", "audit"))
    for key, group in (("source", "sources"), ("task", "tasks")):
        if key in options:
            options[key] = _check_plugin(gate, f"data.{key}", options[key], group)
        elif isinstance(value, Mapping):
            known = ", ".join(plugin_names(group))
            gate.require("data", key, "data requires this key", f"one of {known}")
    if "splits" in options:
        options["splits"] = _read_splits(gate, options["splits"])
    if "audit" in options:
        before = len(gate.problems)
        audit = _check_own(gate, "data.audit", options["audit"], AuditSection)
        options["audit"] = AuditSection(**audit) if len(gate.problems) == before else AuditSection()
    return DataSection(**options)


def _read_splits(gate: Gate, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value:
        gate.refuse("data.splits", f"expected a mapping, got {show(value)}", "{train: train}")
        return {}
    for name, native in value.items():
        path = join("data.splits", name)
        if name not in SPLITS:
            suggestion = suggest(name, SPLITS) or f"they are {', '.join(SPLITS)}"
            gate.refuse(path, f"there is no split {name!r}", suggestion)
        elif not isinstance(native, str) or not native:
            is_share = isinstance(native, float) and 0 < native < 1
            hint = f"write {native * 100:g}%" if is_share else "a native split's name, or 5%"
            gate.refuse(path, f"expected a split's name or a percentage, got {show(native)}", hint)
    if "train" not in value:
        gate.refuse("data.splits", "the split train is missing", "write train: train")
    return {str(name): str(native) for name, native in value.items()}


def _read_adapter(gate: Gate, value: Any) -> AdapterSection | None:
    if value == "full":
        return AdapterSection(None)
    if isinstance(value, Mapping) and "from" in value:
        for name in value:
            if name != "from":
                gate.refuse(
                    join("adapter", name), "`from` stands alone", "the adapter says the rest"
                )
        if not isinstance(value["from"], str):
            gate.refuse("adapter.from", f"expected a path, got {show(value['from'])}")
            return None
        path = gate.resolve_path("adapter.from", value["from"], "adapter folder or run")
        return AdapterSection(None, path)
    if isinstance(value, str):
        known = plugin_names("adapters")
        hint = f"write {{{value}: {{}}}}" if value in known else suggest(value, ["full", *known])
        gate.refuse("adapter", f"the only bare word is full, got {value!r}", hint)
        return None
    choice = _check_plugin(gate, "adapter", value, "adapters")
    if choice is not None and choice.name == "full":
        gate.refuse("adapter.full", "full is written as a bare word", "write adapter: full")
    return None if choice is None else AdapterSection(choice)


def _read_method(gate: Gate, value: Any) -> Choice | None:
    return _check_plugin(gate, "method", value, "methods")


def _read_memory(gate: Gate, value: Any) -> MemorySection:
    if value is None:
        return MemorySection()
    signature = Signature("peftkit:MemorySection", {"budget": Option("budget", Kind("str"))})
    gate.elsewhere["memory"] = ("budget",)
    options = gate.check_options("memory", value, signature, skip=("budget",))
    budget = options.get("budget")
    if budget is None:
        return MemorySection()
    match = _SIZE.fullmatch(budget) if isinstance(budget, str) else None
    num_bytes = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if num_bytes <= 0:
        gate.refuse(
            "memory.budget",
            f"expected a size like 6 GiB, got {show(budget)}",
            f"write {budget} GiB"
            if isinstance(budget, (int, float))
            else "units: GiB, MiB, GB, MB",
        )
    return MemorySection(num_bytes)


def _read_evaluate(gate: Gate, value: Any) -> EvaluateSection | None:
    if value is None or value is False:
        return None
    if value is True:
        return EvaluateSection()
    before = len(gate.problems)
    options = _check_own(gate, "evaluate", value, EvaluateSection, ("generation",))
    if "generation" in options:
        signature = signature_of("transformers:GenerationConfig")
        gate.elsewhere["evaluate.generation"] = tuple(signature.options)
        options["generation"] = gate.check_options(
            "evaluate.generation", options["generation"], signature, owned=OWNED["generation"]
        )
    return EvaluateSection(**options) if len(gate.problems) == before else EvaluateSection()
