"""Read each section of a recipe through the gate, into the nouns of `schema`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from peftkit.embedded.named_templates import template_names
from peftkit.plugins import plugin_names
from peftkit.plugins.speed import Speed
from peftkit.recipe.choices import check_own, check_plugin, pick
from peftkit.recipe.data_section import read_data
from peftkit.recipe.kinds import ANY, Kind, is_number, show
from peftkit.recipe.schema import (
    AdapterSection,
    BpeTokenizer,
    Choice,
    EarlyStoppingSection,
    EvaluateSection,
    FullSection,
    MemorySection,
    ModelSection,
    PerEpochSection,
    StopAboveSection,
    TokenizerAt,
    WordPieceTokenizer,
)
from peftkit.recipe.signatures import (
    Option,
    Signature,
    model_config_classes,
    signature_of,
)
from peftkit.recipe.special_tokens import check_new_tokens, read_special_tokens
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.tables import OWNED
from peftkit.recipe.yaml_file import join

SECTIONS = {
    "name": "names the run directory, runs/NAME; the file's name when absent",
    "model": "which base model is loaded and how",
    "data": "where rows come from, how they are split and what they mean",
    "adapter": "what is trained: a PEFT method, `from: PATH`, or the word full",
    "method": "how it is trained",
    "early_stopping": "when training ends by itself: {patience: 3}; never when absent",
    "per_epoch": "how often an epoch is evaluated and saved: {evaluations: 4, saves: 1}",
    "stop_above": "when a training is given up: {loss: 5.0, steps: 20}; never when absent",
    "memory": "a bound on memory",
    "speed": "how a step is computed: {loss: trained, unpad: auto, fused_adapter: auto}",
    "evaluate": "what is scored after training; nothing when absent or false",
}
REQUIRED = ("model", "data", "adapter", "method")
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
    data = {key: value for key, value in data.items() if not gate.is_nulled(key, value)}
    for key in data:
        if key not in SECTIONS:
            gate.refuse_unknown(key, key, RECIPE)
    for key in REQUIRED:
        if key not in data:
            gate.require("", key, "a recipe requires this section", SECTIONS[key])
    return {
        "name": _read_name(gate, data.get("name", Path(gate.file).stem)),
        "model": _read_model(gate, data.get("model", {}) if "model" in data else None),
        "data": read_data(gate, data["data"]) if "data" in data else None,
        "adapter": _read_adapter(gate, data["adapter"]) if "adapter" in data else None,
        "method": _read_method(gate, data["method"]) if "method" in data else None,
        "early_stopping": _read_early_stopping(gate, data.get("early_stopping")),
        "per_epoch": _read_per_epoch(gate, data.get("per_epoch")),
        "stop_above": _read_stop_above(gate, data.get("stop_above")),
        "memory": _read_memory(gate, data.get("memory")),
        "speed": _read_speed(gate, data.get("speed")),
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


def _read_model(gate: Gate, value: Any) -> ModelSection | None:
    if value is None:
        return None
    skip = ("config", "tokenizer", "quantize", "special_tokens")
    options = check_own(gate, "model", value, ModelSection, skip)
    if options.get("quantize") is not None:
        options["quantize"] = check_plugin(
            gate, "model.quantize", options["quantize"], "quantizers"
        )
    if options.get("config") is not None:
        options["config"] = _read_config(gate, options["config"])
    if options.get("tokenizer") is not None:
        options["tokenizer"] = _read_tokenizer(gate, options["tokenizer"])
    if options.get("special_tokens") is not None:
        options["special_tokens"] = read_special_tokens(gate, options["special_tokens"])
    check_new_tokens(gate, options.get("add_tokens"))
    if isinstance(options.get("chat_template"), str):
        options["chat_template"] = _read_chat_template(gate, options["chat_template"])
    if isinstance(options.get("path"), str):
        options["path"] = _read_model_path(gate, "model.path", options["path"])
    return ModelSection(**options)


def _read_chat_template(gate: Gate, text: str) -> str:
    """Return the name of a template that is known by it, else the place of a Jinja file."""
    known = template_names()
    if text in known:
        return text
    if (gate.folder / text).exists() or re.search(r"[./\\~]", text):
        return gate.resolve_path("model.chat_template", text, "file")
    gate.refuse(
        "model.chat_template",
        f"there is no chat template {text!r}",
        suggest(text, known) or f"a Jinja file, or one of {', '.join(known)}",
    )
    return text


def _read_model_path(gate: Gate, key: str, text: str) -> str:
    if text.startswith("embedded:"):
        from peftkit import embedded

        name = text.removeprefix("embedded:")
        known = embedded.names()
        if name not in known:
            gate.refuse(
                key,
                f"no embedded model is called {name!r}",
                suggest(name, known) or f"they are {', '.join(known)}",
            )
        return text
    prefix, colon, name = text.partition(":")
    if colon and get_close_matches(prefix.lower(), ["embedded"], cutoff=0.6):
        gate.refuse(
            key,
            f"{prefix!r} is no place of models",
            f"did you mean embedded:{name}?",
        )
        return text
    looks_local = text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text
    if looks_local or (gate.folder / text).is_dir():
        return gate.resolve_path(key, text, "model folder")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text):
        gate.refuse(key, f"{text!r} is neither a Hub id nor a folder", "e.g. org/name")
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
    if isinstance(value, Mapping) and "path" in value:
        at = check_own(gate, "model.tokenizer", value, TokenizerAt)
        if isinstance(at.get("path"), str):
            at["path"] = _read_model_path(gate, "model.tokenizer.path", at["path"])
        return Choice("path", at)
    choice = pick(gate, "model.tokenizer", value, "tokenizer")
    if choice is None:
        return None
    path = join("model.tokenizer", choice.name)
    if choice.name not in TOKENIZERS:
        gate.refuse(path, f"there is no tokenizer {choice.name!r}", f"use {', '.join(TOKENIZERS)}")
        return choice
    chosen = TOKENIZERS[choice.name]
    options = check_own(gate, path, choice.options, chosen)
    defaults = {one.name: one.default for one in dataclasses.fields(chosen)}
    return Choice(choice.name, {**defaults, **options})


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
    if isinstance(value, Mapping) and list(value) == ["full"]:
        options = check_own(gate, "adapter.full", value["full"], FullSection)
        return AdapterSection(None, train=tuple(map(str, options.get("train") or ())))
    choice = check_plugin(gate, "adapter", value, "adapters")
    return None if choice is None else AdapterSection(choice)


def _read_method(gate: Gate, value: Any) -> Choice | None:
    return check_plugin(gate, "method", value, "methods")


def _read_early_stopping(gate: Gate, value: Any) -> EarlyStoppingSection | None:
    if value is None or value is False:
        return None
    if value is True:
        return EarlyStoppingSection()
    return EarlyStoppingSection(**check_own(gate, "early_stopping", value, EarlyStoppingSection))


def _read_per_epoch(gate: Gate, value: Any) -> PerEpochSection | None:
    if value is None:
        return None
    before = len(gate.problems)
    options = check_own(gate, "per_epoch", value, PerEpochSection)
    for name, number in options.items():
        if is_number(number) and number < 1:
            gate.refuse(f"per_epoch.{name}", f"must be at least 1, got {number}", "or delete it")
    return PerEpochSection(**options) if len(gate.problems) == before else PerEpochSection()


def _read_stop_above(gate: Gate, value: Any) -> StopAboveSection | None:
    if value is None or value is False:
        return None
    if value is True:
        return StopAboveSection()
    before = len(gate.problems)
    options = check_own(gate, "stop_above", value, StopAboveSection)
    for name, least in (("loss", 0), ("steps", 1)):
        if is_number(options.get(name)) and options[name] < least:
            gate.refuse(f"stop_above.{name}", f"must be at least {least}, got {options[name]}")
    return StopAboveSection(**options) if len(gate.problems) == before else StopAboveSection()


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


def _read_speed(gate: Gate, value: Any) -> Speed:
    if isinstance(value, Mapping):
        words = {True: "on", False: "off"}
        value = {
            name: words[one] if isinstance(one, bool) and name != "loss" else one
            for name, one in value.items()
        }
    before = len(gate.problems)
    options = check_own(gate, "speed", value, Speed)
    return Speed(**options) if len(gate.problems) == before else Speed()


def _read_evaluate(gate: Gate, value: Any) -> EvaluateSection | None:
    if value is None or value is False:
        return None
    if value is True:
        return EvaluateSection()
    before = len(gate.problems)
    options = check_own(gate, "evaluate", value, EvaluateSection, ("generation",))
    if "generation" in options:
        signature = signature_of("transformers:GenerationConfig")
        gate.elsewhere["evaluate.generation"] = tuple(signature.options)
        options["generation"] = gate.check_options(
            "evaluate.generation", options["generation"], signature, owned=OWNED["generation"]
        )
    return EvaluateSection(**options) if len(gate.problems) == before else EvaluateSection()
