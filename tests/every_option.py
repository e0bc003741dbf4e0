"""Values for every option of the schema that `explain` and editors show, by its type alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

_OF_TYPE: dict[str, tuple[Any, ...]] = {
    "boolean": (True, False),
    "integer": (1, 3),
    "number": (0.5,),
    "string": ("a",),
    "array": ([], ["a"]),
    "object": ({}, {"a": 1}),
}


@cache
def _schema() -> Mapping[str, Any]:
    from peftkit.recipe.json_schema import json_schema

    return json_schema()


def properties(definition: str) -> Mapping[str, Any]:
    """Return the options of a class by its name, e.g. `trl.SFTConfig`."""
    found: Mapping[str, Any] = _schema()["$defs"][definition]["properties"]
    return found


def values_of(option: Mapping[str, Any]) -> list[Any]:
    """Return values that an option's schema allows, each once, its default not among them."""
    found: dict[str, Any] = {}
    for value in _values(option):
        found.setdefault(json.dumps(value), value)
    found.pop(json.dumps(option.get("default")), None)
    return list(found.values())


def _values(option: Mapping[str, Any]) -> Iterator[Any]:
    if "enum" in option:
        yield from option["enum"]
        return
    if "const" in option:
        yield option["const"]
        return
    for one in (*option.get("anyOf", ()), *option.get("oneOf", ())):
        yield from _values(
            {**one, "minimum": option.get("minimum", 0)} if "enum" not in one else one
        )
    if "$ref" in option:
        yield {}
    kinds = option.get("type", ())
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        for value in _OF_TYPE.get(kind, ()):
            if kind not in {"integer", "number"} or value >= option.get("minimum", 0):
                yield value


_PROBLEM = re.compile(r"^  (?:override|\d+)\s+(\S+)  (.*)$", re.MULTILINE)
_REMEDY = re.compile(r"[;,] (?:or )?write (.+)$")
_PAIR = re.compile(r"([a-z_][\w.]*): (\{.*?\}|\[.*?\]|[^\s,]+)")


def remedies(said: str) -> list[str]:
    """Return what `check` says to write against each problem, as overrides; `...` is for one's own.

    A key without a dot stands beside the one that has the problem; a value alone is that one's.
    """
    found = []
    for key, problem in _PROBLEM.findall(said):
        remedy = _REMEDY.search(problem)
        if remedy is None or "..." in remedy[1]:
            continue
        beside = key.rpartition(".")[0]
        pairs = _PAIR.findall(remedy[1]) or [(key, remedy[1].split()[0])]
        found += [f"{k if '.' in k else f'{beside}.{k}'}={value}" for k, value in pairs]
    return found
