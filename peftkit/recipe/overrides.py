"""Apply `a.b.c=value` from the command line to a recipe's data, before the gate sees it."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.errors import Problem, RecipeError
from peftkit.recipe.yaml_file import join, parse_value, split

_MISSING = object()
_KEY = re.compile(r'(?:[^"=]|"(?:[^"\\]|\\.)*")*', re.DOTALL)
"""What stands before the first `=` outside quotes; in them a backslash escapes one character."""


@dataclass(frozen=True)
class Overridden:
    """Hold a recipe's data after its overrides."""

    data: dict[str, Any]
    keys: frozenset[str]
    """Dotted keys that were set."""
    problems: tuple[Problem, ...]


def apply_overrides(file: str, data: dict[str, Any], overrides: Sequence[str]) -> Overridden:
    """Set each `KEY=VALUE`, the value read as YAML, in a copy of the data.

    Whether a key exists is the gate's question; here a key only has to have a place.
    """
    changed = copy.deepcopy(data)
    keys: set[str] = set()
    problems: list[Problem] = []
    for override in overrides:
        try:
            key, value = _parse(override)
            _set(changed, key, value)
        except _RefusedError as error:
            problem = Problem(file, None, error.key, error.problem, error.suggestion, True)
            problems.append(problem)
        else:
            keys.add(".".join(join("", part) for part in split(key)))
    return Overridden(changed, frozenset(keys), tuple(problems))


def without_decisions(data: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a run's resolved recipe as its user stated it, and whether it is one.

    `resolved.yaml` lists under `decisions` what peftkit chose; those options leave again, to be
    chosen anew for the machine that loads it.
    """
    if not isinstance(data.get("decisions"), list):
        return data, False
    stated = copy.deepcopy(data)
    for decision in stated.pop("decisions"):
        key = decision.get("key") if isinstance(decision, dict) else None
        holder: Any = stated
        *parents, last = split(key) if isinstance(key, str) and key else [""]
        for part in parents:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and last in holder and holder[last] == decision["value"]:
            del holder[last]
    return stated, True


class _RefusedError(Exception):
    def __init__(self, key: str, problem: str, suggestion: str | None = None) -> None:
        self.key = key
        self.problem = problem
        self.suggestion = suggestion


def _parse(override: str) -> tuple[str, Any]:
    key, equals, text = _cut(override)
    key = key.strip()
    if equals != "=" or not key:
        raise _RefusedError(
            "", f"{override!r} is not KEY=VALUE", "e.g. method.sft.learning_rate=1e-4"
        )
    try:
        split(key)
    except ValueError:
        raise _RefusedError("", f"{key!r} is not a dotted key", "write a.b.c=value") from None
    try:
        return key, parse_value(text, "override")
    except RecipeError as error:
        raise _RefusedError(
            key, f"{text!r} is not YAML: {error.problems[0].problem}", "quote the value"
        ) from None


def _cut(override: str) -> tuple[str, str, str]:
    """Cut at the first `=` outside quotes."""
    rest = _KEY.sub("", override, count=1)
    return override[: len(override) - len(rest)], rest[:1], rest[1:]


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    parts = split(key)
    holder: Any = data
    walked = ""
    for part in parts[:-1]:
        walked = join(walked, part)
        child = _get(holder, part, walked)
        if child is _MISSING or child is None:
            child = {}
            _put(holder, part, child, walked)
        if not isinstance(child, (dict, list)):
            rest = "".join(f"{{{p}: " for p in parts[parts.index(part) + 1 :])
            raise _RefusedError(
                key,
                f"{walked} is {child!r} in this recipe, not a mapping",
                f"replace it: {walked}={rest}...{'}' * rest.count('{')}",
            )
        holder = child
    _put(holder, parts[-1], value, key)


def _get(holder: Any, part: str, walked: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(part, _MISSING)
    return holder[_index(holder, part, walked)]


def _put(holder: Any, part: str, value: Any, walked: str) -> None:
    if isinstance(holder, dict):
        holder[part] = value
    else:
        holder[_index(holder, part, walked)] = value


def _index(items: list[Any], part: str, walked: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise _RefusedError(
            walked, f"the list has items 0 to {len(items) - 1}", "replace the whole list"
        )
    return int(part)
