"""Apply `a.b.c=value` from the command line to a recipe's data, before the gate sees it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.errors import Problem, RecipeError
from peftkit.recipe.kinds import show
from peftkit.recipe.yaml_file import join, parse_value, split

_MISSING = object()
_KEY = re.compile(r'(?:[^"=]|"(?:[^"\\]|\\.)*")*', re.DOTALL)
"""What stands before the first `=` outside quotes; in them a backslash escapes one character."""


_RIVALS = (("num_train_epochs", "max_steps"), ("bf16", "fp16"))
"""Options of a method of which one alone can be meant."""
_INTERVALS = ("eval", "save", "logging")


@dataclass(frozen=True)
class Overridden:
    """Hold a recipe's data after its overrides."""

    data: dict[str, Any]
    keys: frozenset[str]
    """Dotted keys that were set."""
    problems: tuple[Problem, ...]
    replaced: tuple[str, ...] = ()
    """What the file says and a rival on the command line leaves out, each with its reason."""


def apply_overrides(file: str, data: dict[str, Any], overrides: Sequence[str]) -> Overridden:
    """Set each `KEY=VALUE`, the value read as YAML, in a copy of the data.

    Whether a key exists is the gate's question; here a key only has to have a place. What is typed
    wins over what the file says: also over an option that cannot stand beside it.
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
    replaced = _leave_out_rivals(data, changed, keys)
    return Overridden(changed, frozenset(keys), tuple(problems), replaced)


def _leave_out_rivals(
    data: dict[str, Any], changed: dict[str, Any], keys: set[str]
) -> tuple[str, ...]:
    """Take what a typed option rules out from the changed data, where the file alone says it."""
    said = []
    for section, name in (("method", name) for name in _mapping(changed.get("method"))):
        options = _mapping(changed[section][name])
        stated = _mapping(_mapping(data.get(section)).get(name))
        for typed, rival in _rivals(options):
            at, gone = join(join(section, name), typed), join(join(section, name), rival)
            if at in keys and rival in stated and gone not in keys:
                del options[rival]
                said.append(f"{gone}: left out, was {show(stated[rival])} ({at} was typed)")
    return tuple(said)


def _rivals(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give each stated option that rules another one out, and that one."""
    for pair in _RIVALS:
        for typed, rival in (pair, pair[::-1]):
            if rival in options and options.get(typed) not in (None, False, -1):
                yield typed, rival
    for noun in _INTERVALS:
        strategy, steps = f"{noun}_strategy", f"{noun}_steps"
        if steps in options and options.get(strategy) in ("no", "epoch", "best"):
            yield strategy, steps


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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
