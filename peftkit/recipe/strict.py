"""The gate: every option of every section, ours and theirs, checked against its class.

Nothing is built here and nothing native is imported: a signature is plain data. All problems
are gathered, each with its line, dotted key and the way out.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from peftkit.errors import Problem
from peftkit.recipe.kinds import Kind, is_number, matches, show
from peftkit.recipe.signatures import Option, Signature, signature_of
from peftkit.recipe.tables import (
    ADVICE,
    BOUNDS,
    CORRECTED,
    CORRECTED_EVERYWHERE,
    RENAMED,
    SUFFIX_BOUNDS,
    Bound,
)
from peftkit.recipe.yaml_file import join, parent_of, split

_YES_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_MOST_SUGGESTED = 100
"""Unknown keys of a recipe for which the nearest is looked for, which takes milliseconds each."""
_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class Gate:
    """Gather the problems of one recipe."""

    def __init__(
        self,
        file: str,
        lines: Mapping[str, int],
        overridden: Collection[str] = (),
        unneeded: Collection[str] = (),
    ) -> None:
        self.file = file
        self.lines = lines
        self.overridden = overridden
        self.unneeded = unneeded
        """Sections whose files need not be there."""
        self.folder = Path(file).resolve().parent
        """Where relative paths start."""
        self.problems: list[Problem] = []
        self.elsewhere: dict[str, Collection[str]] = {}
        """Section -> its keys, to say where a misplaced key belongs."""
        self._unknown: list[tuple[int, str, str]] = []
        self._num_unknown = 0

    def refuse(self, key: str, problem: str, suggestion: str | None = None) -> None:
        """Note a problem at a key, or at the nearest key above it that has a line."""
        line, is_override = self._place(key)
        self.problems.append(Problem(self.file, line, key, problem, suggestion, is_override))

    def sorted_problems(self) -> list[Problem]:
        """Return every problem by line, misplaced keys with their right section."""
        for index, name, prefix in self._unknown:
            homes = [where for where, keys in self.elsewhere.items() if name in keys]
            homes = [where for where in homes if where != prefix]
            old = self.problems[index]
            if homes:
                suggestion = f"{name} is a key of {homes[0]}"
                self.problems[index] = Problem(old.file, old.line, old.key, old.problem, suggestion)
        self._unknown.clear()
        return sorted(self.problems, key=lambda p: (p.line is not None, p.line or 0))

    def _place(self, key: str) -> tuple[int | None, bool]:
        """Return a key's line, or that an override is to blame for it."""
        parts = split(key) if key else []
        while parts:
            probe = ".".join(join("", part) for part in parts)
            is_below = any(key.startswith(f"{probe}.") for key in self.overridden)
            if probe in self.overridden or (is_below and probe not in self.lines):
                return None, True
            if probe in self.lines:
                return self.lines[probe], False
            parts.pop()
        return None, False

    def refuse_override(self, key: str, problem: str, suggestion: str | None = None) -> None:
        """Note a problem that an override below this key made."""
        self.problems.append(Problem(self.file, None, key, problem, suggestion, True))

    def check_options(
        self,
        key: str,
        options: Any,
        signature: Signature,
        *,
        owned: Mapping[str, str] | None = None,
        skip: Collection[str] = (),
    ) -> dict[str, Any]:
        """Check a mapping against a class; return the options whose key exists.

        Args:
            owned: key of this class that peftkit sets -> what to do instead.
            skip: options that the caller checks itself.
        """
        if not isinstance(options, Mapping):
            self.refuse(
                key, f"expected a mapping of {_title(key, signature)}'s keys, got {show(options)}"
            )
            return {}
        owned = owned or {}
        options = {
            name: value
            for name, value in options.items()
            if not self._is_deleted(join(key, name), value, signature, name)
        }
        known: dict[str, Any] = {}
        for name, value in options.items():
            path = join(key, name)
            if name in owned:
                self.refuse(path, "peftkit sets this key itself", instead(owned[name]))
            elif name not in signature.options:
                self.refuse_unknown(path, name, signature, owned, value)
            else:
                known[name] = value
                if name not in skip:
                    self._check_option(path, value, signature, signature.options[name])
        for option in signature.options.values():
            is_missing = option.name not in options and option.name not in owned
            if option.is_required and is_missing:
                self.require(
                    key,
                    option.name,
                    f"{_title(key, signature)} requires this key",
                    f"write {option.name}: {option.kind}",
                )
        return known

    def is_nulled(self, key: str, value: Any) -> bool:
        """Tell whether `KEY=null` was typed for a key."""
        return value is None and key in self.overridden

    def _is_deleted(self, key: str, value: Any, signature: Signature, name: str) -> bool:
        """Tell whether a typed `null` takes an option's stated value away, being none of its own.

        Where null is a value of the option (`max_length: null`, without a limit), that is meant.
        """
        if name not in signature.options or not self.is_nulled(key, value):
            return False
        return not matches(None, kind_of(signature, signature.options[name]))

    def _is_suggested(self, section: str, name: str) -> bool:
        """Tell whether an unknown key of this section was probably meant to be this one."""
        suggestion = f"did you mean {name}?"
        return any(
            problem.suggestion == suggestion and parent_of(problem.key) == section
            for problem in self.problems
        )

    def require(self, section: str, name: str, problem: str, suggestion: str) -> None:
        """Refuse a missing key, unless an unknown one beside it was probably meant to be it."""
        if not self._is_suggested(section, name):
            self.refuse(join(section, name), problem, suggestion)

    def refuse_unknown(
        self,
        path: str,
        name: str,
        signature: Signature,
        owned: Collection[str] = (),
        value: Any = None,
    ) -> None:
        """Refuse a key that its class does not know, with the nearest one that it does."""
        names = [option for option in signature.options if option not in owned]
        section = parent_of(path)
        self._num_unknown += 1
        if self._num_unknown > _MOST_SUGGESTED:
            self.refuse(path, f"{_title(section, signature)} has no such key")
            return
        is_renamed = any(new in names for new in RENAMED.get(name, ()))
        is_sure = is_renamed or bool(get_close_matches(name, names, n=1, cutoff=0.85))
        if not is_sure:
            self._unknown.append((len(self.problems), name, section))
        suggestion = suggest(name, names)
        if name in ADVICE and is_renamed:
            suggestion = ADVICE[name].format(show(value))
        if suggestion is None and len(names) <= 12:
            suggestion = f"its keys are {', '.join(names)}" if names else "it takes none"
        self.refuse(path, f"{_title(section, signature)} has no such key", suggestion)

    def _check_option(self, path: str, value: Any, signature: Signature, option: Option) -> None:
        if option.has_default and _equals(value, option.default):
            return
        kind = kind_of(signature, option)
        if not self.check_value(path, value, kind):
            return
        bound = bound_of(option.name)
        if bound is not None and is_number(value) and not bound.holds(value):
            self.refuse(path, f"must be {bound}, got {show(value)}")

    def check_value(self, path: str, value: Any, kind: Kind) -> bool:
        """Check one value; a nested mapping or list is searched for the item at fault."""
        branches = kind.items if kind.name == "union" else (kind,)
        if isinstance(value, Mapping):
            records = [branch for branch in branches if branch.name == "record"]
            if records and records[0].record.endswith(":PreTrainedConfig"):
                return True  # of a class that the model's own configuration knows
            if records:
                before = len(self.problems)
                self.check_options(path, value, signature_of(records[0].record))
                return len(self.problems) == before
        if matches(value, kind):
            return True
        inner = [b for b in branches if b.name in ("list", "mapping") and _fits_outside(value, b)]
        if len(inner) == 1 and value:
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            results = [
                self.check_value(join(path, part), item, inner[0].items[0]) for part, item in pairs
            ]
            return all(results)
        self.refuse(path, f"expected {_describe(kind)}, got {show(value)}", _repair(value, kind))
        return False

    def resolve_paths(self, path: str, value: Any, kind: Kind) -> Any:
        """Return a value whose paths are absolute, refusing those that do not exist."""
        branches = kind.items if kind.name == "union" else (kind,)
        may_be_other = any(branch.name == "str" for branch in branches)
        for branch in branches:
            if branch.name == "path" and isinstance(value, str):
                # `str | Path` is a folder here or a name elsewhere, as `hub: {path: ...}`.
                is_other = may_be_other and not os.path.exists(self.folder / value)  # noqa: PTH110
                return value if is_other else self.resolve_path(path, value)
            if branch.name == "list" and isinstance(value, list):
                return [
                    self.resolve_paths(join(path, index), item, branch.items[0])
                    for index, item in enumerate(value)
                ]
            if branch.name == "mapping" and isinstance(value, Mapping):
                return {
                    name: self.resolve_paths(join(path, name), item, branch.items[0])
                    for name, item in value.items()
                }
        return value

    def resolve_path(self, key: str, text: str, what: str = "file or folder") -> str:
        """Return an absolute path or pattern from the recipe's folder; refuse what is not there."""
        try:
            path = self.folder / Path(text).expanduser()
            _ = path.exists(), path.resolve()
        except (OSError, RuntimeError, ValueError) as error:  # too long; `~nobody`; a NUL
            self.refuse(key, f"{text[:40]!r} is no path: {str(error)[:40]}")
            return text
        if not path.exists() and self._place(key)[1] and Path(text).exists():
            path = Path(text).absolute()  # typed, where the shell completes it
        if split(key)[0] in self.unneeded and not path.exists():
            return str(path)
        if any(sign in text for sign in "*?[") and not path.exists():
            if not any(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
                self.refuse(key, f"no file matches {text!r}", f"paths start at {self.folder}")
            return str(path)
        if not path.exists():
            self.refuse(key, f"there is no {what} {text!r}", self._suggest_path(path))
        return str(path.resolve())

    def _suggest_path(self, path: Path) -> str:
        if path.parent.is_dir():
            names = [child.name for child in path.parent.iterdir()]
            close = get_close_matches(path.name, names, n=1)
            if close:
                return f"did you mean {close[0]}?"
        return f"relative paths start at the recipe's folder, {self.folder}"


def kind_of(signature: Signature, option: Option) -> Kind:
    """Return what an option really takes: its hint, or this house's correction of it."""
    corrected = CORRECTED.get((signature.name, option.name))
    return corrected or CORRECTED_EVERYWHERE.get(option.name) or option.kind


def bound_of(name: str) -> Bound | None:
    """Return the numbers that can work for an option of this name."""
    if name in BOUNDS:
        return BOUNDS[name]
    endings = [bound for ending, bound in SUFFIX_BOUNDS.items() if name.endswith(ending)]
    return endings[0] if endings else None


def suggest(name: str, known: Sequence[str]) -> str | None:
    """Return "did you mean X?" for the known word nearest to a wrong one, or None."""
    for new in RENAMED.get(name, ()):
        if new in known:
            return f"did you mean {new}?"
    folded = {word.lower().replace("-", "_"): word for word in known}
    wanted = name.lower().replace("-", "_").strip()
    if wanted in folded:
        return f"did you mean {folded[wanted]}?"
    close = get_close_matches(wanted, list(folded), n=3, cutoff=0.6)
    # Two swapped letters are the commonest slip, and difflib ranks them no higher than others.
    swapped = [word for word in close if sorted(word) == sorted(wanted)]
    nearest = [*swapped, *close]
    return f"did you mean {folded[nearest[0]]}?" if nearest else None


def _title(key: str, signature: Signature) -> str:
    """Name what a key belongs to: a native class, or our own section as the recipe writes it."""
    return signature.title if signature.is_native else key.rpartition(".")[2] or "a recipe"


def instead(remedy: str) -> str:
    """Say what to do in place of a key that peftkit sets itself."""
    is_nothing = remedy.startswith("nothing: ")
    return f"delete it: {remedy[9:]}" if is_nothing else f"use instead: {remedy}"


def _equals(value: Any, default: Any) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return value is default
    is_widened = isinstance(value, int) and isinstance(default, float)
    return bool(value == default) and (is_widened or type(value) is type(default))


def _fits_outside(value: Any, kind: Kind) -> bool:
    if kind.name == "mapping":
        return isinstance(value, Mapping)
    return isinstance(value, list)


def _describe(kind: Kind) -> str:
    choices = [item for item in (kind, *kind.items) if item.name == "choice"]
    if choices and len(choices[0].choices) > 12:
        first = ", ".join(show(choice) for choice in choices[0].choices[:4])
        return f"one of {len(choices[0].choices)} names ({first}, ...)"
    return str(kind)


def _repair(value: Any, kind: Kind) -> str | None:
    """Say what to write instead of a value of the wrong kind, where that is clear."""
    branches = kind.items if kind.name == "union" else (kind,)
    names = {branch.name for branch in branches}
    choices = [c for b in branches if b.name == "choice" for c in b.choices]
    if isinstance(value, str):
        if "list" in names and names <= {"list", "null"}:
            return f"write [{value}]" if matches([value], kind) else None
        return _repair_text(value, names, choices)
    if value is None:
        return "delete the key to take its default"
    if isinstance(value, list):
        is_one = len(value) == 1 and matches(value[0], kind)
        return f"write {value[0]}" if is_one else None
    if isinstance(value, (int, float)):
        return _repair_number(value, names, choices)
    return None


def _repair_number(value: float, names: set[str], choices: Sequence[Any]) -> str | None:
    written = show(value)
    if "str" in names or written in choices:
        return f"write '{written}' in quotes"
    is_whole = float(value).is_integer() if math.isfinite(value) else False
    return f"write {int(value)}" if is_whole and names & {"int", "float"} else None


def _repair_text(text: str, names: set[str], choices: Sequence[Any]) -> str | None:
    if text == "auto" and "bool" in names:
        return "delete the key: what a recipe leaves open is decided by model.dtype and the machine"
    if "bool" in names and text.lower() in {*_YES_NO, "true", "false"}:
        return f"write {_YES_NO.get(text.lower(), text.lower())}"
    if names & {"int", "float"}:
        number = _read_number(text, "float" in names)
        if number is not None:
            is_quoted = _PLAIN_NUMBER.fullmatch(text) and not re.match(r"[-+]?0\d", text)
            quotes = " without quotes" if is_quoted else ""
            return f"write {number}{quotes}"
    if choices:
        words = [str(choice) for choice in choices]
        close = [word for word in words if text and word.startswith(text.lower())]
        close = close or get_close_matches(text.lower(), words, n=1, cutoff=0.5)
        return f"did you mean {close[0]}?" if close else None
    return "delete the key, or write null" if text == "None" and "null" in names else None


def _read_number(text: str, may_be_float: bool) -> str | None:
    """Return the number a text probably means: `1_000`, `0x10`, `"16"`, `2e-4`, `10%`, `2,5`."""
    of_thousands = re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", text)
    plain = text.replace("_", "").replace(",", "" if of_thousands else ".")
    number: float | None = None
    if re.fullmatch(r"[-+]?0(x[0-9a-fA-F]+|o[0-7]+|b[01]+)", plain):
        number = int(plain, 0)
    elif re.fullmatch(r"\d+(\.\d+)?%", plain) and may_be_float:
        number = float(plain[:-1]) / 100
    elif _PLAIN_NUMBER.fullmatch(plain) and len(plain) < 40:
        if may_be_float and "e" in plain.lower():
            return plain
        number = float(plain)
    if number is None or not (may_be_float or float(number).is_integer()):
        return None
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
