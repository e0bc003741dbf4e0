"""Read the section `data`: one source or a list of them, splits, task and audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Any

from peftkit.plugins import find, plugin_names
from peftkit.plugins.formats import is_format, read_format
from peftkit.plugins.rendering import Rendering
from peftkit.recipe.choices import check_own, check_plugin
from peftkit.recipe.kinds import is_number, show
from peftkit.recipe.schema import AuditSection, Choice, DataSection, Part, RowsSection
from peftkit.recipe.split_values import EXAMPLES, read_split
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.yaml_file import join

SPLITS = ("train", "validation", "test")
PART_KEYS = ("weight", "task", "splits")
"""What an item of a list of sources may say beside the source itself."""
_NO_CHOICE = Choice("")


def read_data(gate: Gate, value: Any) -> DataSection | None:
    """Check and read the section; what could not be read is left at its default."""
    nested = ("source", "splits", "task", "audit", "rows", "dialogue")
    options = check_own(gate, "data", value, DataSection, nested)
    stated = value if isinstance(value, Mapping) else {}
    if "task" in options:
        options["task"] = check_plugin(gate, "data.task", options["task"], "tasks")
    if "splits" in options:
        options["splits"] = _read_splits(gate, "data.splits", options["splits"])
    if "source" not in options and isinstance(value, Mapping):
        known = ", ".join(plugin_names("sources"))
        gate.require("data", "source", "data requires this key", f"one of {known}")
    if isinstance(stated.get("source"), list):
        options["source"] = _read_list(gate, options)
        if options["source"] and "task" not in options:
            options["task"] = options["source"][0].task
    elif "source" in options:
        source = check_plugin(gate, "data.source", options["source"], "sources")
        options["source"] = source
        if source is not None:
            options.setdefault("splits", _named_splits(source) or {"train": "train"})
    if "task" not in options and isinstance(value, Mapping):
        known = ", ".join(plugin_names("tasks"))
        gate.require("data", "task", "data requires this key", f"one of {known}")
    own = {"audit": _read_audit, "rows": _read_rows, "dialogue": _read_dialogue}
    read = {key: take(gate, options[key]) for key, take in own.items() if key in options}
    return DataSection(**{**options, **read})


def _read_audit(gate: Gate, value: Any) -> AuditSection:
    before = len(gate.problems)
    options = check_own(gate, "data.audit", value, AuditSection)
    return AuditSection(**options) if len(gate.problems) == before else AuditSection()


def _read_rows(gate: Gate, value: Any) -> RowsSection:
    before = len(gate.problems)
    options = check_own(gate, "data.rows", value, RowsSection)
    return RowsSection(**options) if len(gate.problems) == before else RowsSection()


def _read_dialogue(gate: Gate, value: Any) -> Rendering:
    before = len(gate.problems)
    options = check_own(gate, "data.dialogue", value, Rendering)
    stated = options.get("date")
    if isinstance(stated, str):
        try:
            date.fromisoformat(stated)
        except ValueError:
            gate.refuse("data.dialogue.date", f"is no day: {show(stated)}", "e.g. 2026-11-30")
    if isinstance(options.get("system"), str):
        _check_system(gate, options["system"])
    return Rendering(**options) if len(gate.problems) == before else Rendering()


def _check_system(gate: Gate, text: str) -> None:
    try:
        read_format(text) if is_format(text) else None
    except ValueError as error:
        hint = "columns stand in braces, {persona}; a brace itself is written {{ or }}"
        gate.refuse("data.dialogue.system", str(error), hint)


def _read_list(gate: Gate, options: Mapping[str, Any]) -> tuple[Part, ...]:
    items = options["source"]
    if not items:
        gate.refuse(
            "data.source", "the list of sources is empty", "e.g. [{json: {files: a.jsonl}}]"
        )
        return ()
    found = [_read_part(gate, f"data.source.{at}", item, options) for at, item in enumerate(items)]
    parts = [part for part in found if part is not None]
    repeated = {name for name, n in Counter(p.source.name for p in parts).items() if n > 1}
    numbers: Counter[str] = Counter()
    labelled = []
    for part in parts:
        name = part.source.name
        numbers[name] += 1
        label = f"{name} {numbers[name]}" if name in repeated else name
        labelled.append(Part(**{**vars(part), "label": label}))
    return tuple(labelled)


def _read_part(gate: Gate, key: str, item: Any, options: Mapping[str, Any]) -> Part | None:
    if not isinstance(item, Mapping):
        got = f"expected a mapping with one key, the source's name, got {show(item)}"
        gate.refuse(key, got, "e.g. {json: {files: a.jsonl}}")
        return None
    chosen = {name: value for name, value in item.items() if name not in PART_KEYS}
    source = check_plugin(gate, key, chosen, "sources")
    task, task_key = options.get("task", _NO_CHOICE), "data.task"
    if "task" in item:
        task_key = f"{key}.task"
        task = check_plugin(gate, task_key, item["task"], "tasks")
    elif task == _NO_CHOICE:
        gate.refuse(key, "this source has no task", "give it a `task`, or all of them by data.task")
    weight = item.get("weight", 1.0)
    if not is_number(weight) or not 0 < weight <= 1000:
        gate.refuse(
            f"{key}.weight",
            f"expected a number above 0, got {show(weight)}",
            "2 takes each of its rows twice an epoch, 0.5 every other; leave a source out instead"
            " of giving it 0",
        )
    if source is None or task is None:
        return None
    named = _named_splits(source)
    splits = options.get("splits") or named or {"train": "train"}
    if "splits" in item:
        splits = _read_splits(gate, f"{key}.splits", item["splits"])
    return Part(key, source, task, task_key, splits, float(weight) if is_number(weight) else 1.0)


def _named_splits(source: Choice) -> dict[str, str]:
    """Return the splits that a source's own options name, as those of the recipe."""
    if source.name not in plugin_names("sources") or not isinstance(source.options, Mapping):
        return {}
    named = find("sources", source.name).named_splits(source.options)
    return {name: name for name in named if name in SPLITS}


def _read_splits(gate: Gate, key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value:
        gate.refuse(key, f"expected a mapping, got {show(value)}", "{train: train}")
        return {}
    value = {name: one for name, one in value.items() if not gate.is_nulled(join(key, name), one)}
    for name, native in value.items():
        path = join(key, name)
        if name not in SPLITS:
            suggestion = suggest(name, SPLITS) or f"they are {', '.join(SPLITS)}"
            gate.refuse(path, f"there is no split {name!r}", suggestion)
        else:
            _check_split(gate, path, name, native)
    if "train" not in value and key == "data.splits":
        gate.refuse(key, "the split train is missing", "write train: train")
    return {str(name): str(native) for name, native in value.items()}


def _check_split(gate: Gate, path: str, name: str, native: Any) -> None:
    is_count = isinstance(native, int) and not isinstance(native, bool)
    if not is_count and (not isinstance(native, str) or not native.strip()):
        is_share = isinstance(native, float) and 0 < native < 1
        hint = f"write {native * 100:g}%" if is_share else EXAMPLES
        gate.refuse(path, f"expected a split, got {show(native)}", hint)
        return
    try:
        read = read_split(str(native))
    except ValueError as error:
        gate.refuse(path, str(error), EXAMPLES)
        return
    if read.is_cut and name == "train":
        what = "[:" + str(native).strip() + "]"
        gate.refuse(path, "train is what remains of a native split", f"write train: train{what}")
    elif read.count is not None and read.count < 1:
        gate.refuse(path, f"must be at least 1 row, got {native}", EXAMPLES)
    elif read.share is not None and not 0 < read.share < 1:
        gate.refuse(path, f"must be above 0% and below 100%, got {native}", "e.g. 5%")
