"""Find the command of a shell script that starts a training, and read its options.

Nothing is run. Assignments above the command are followed (`LR=1e-4`, `${LR}`, `${LR:-1e-4}`);
what depends on anything else, on `$1` or on another program, is named with its line.
"""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from peftkit.plugins.importer import Foreign
from peftkit.recipe.foreign_yaml import parse_foreign, read_foreign_yaml

_ASSIGNMENT = re.compile(
    r"^\s*(?:export\s+|local\s+|declare\s+(?:-\w+\s+)?)?([A-Za-z_]\w*)(\+?)=(.*)$"
)
_VARIABLE = re.compile(
    r"\$\{(\w+)(?::?[-=]([^}]*))?\}|\$(\w+)|\$\(\([^)]*\)\)|\$\([^)]*\)|\$[@*#?]|`[^`]*`"
)
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_ARRAY = re.compile(r"\"?\$\{(\w+)\[@\]\}\"?")
_PROGRAM = re.compile(r"\$\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")
"""Another program's words, of which nothing is known."""
_LAUNCHES = re.compile(r"--(?:nproc[_-]per[_-]node|num_processes|num_gpus|nnodes)[ =]\s*(\S+)")
_CONFIG = (".yaml", ".yml", ".json")
_ARITHMETIC = re.compile(r"\$\(\(\s*([^()]*?)\s*\)\)|\$\(\s*expr\s+([^()]*?)\s*\)")
_OPERATORS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv,
    "%": operator.mod,
}  # fmt: skip
_OLD_FLAGS = ("no_cuda",)
"""Flags of transformers that begin with `no_` and are no other's opposite."""


@dataclass
class _Line:
    """Hold a logical line: continued lines joined, comments gone."""

    number: int
    text: str


@dataclass
class _Script:
    """Hold what is known at a place of the script."""

    variables: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Name -> value, and the line that gives it."""
    arrays: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    """What could not be resolved -> the line where it stands."""


def read_shell(file: Path, commands: Sequence[str]) -> Foreign | None:
    """Read the first command of a script that one of these patterns finds; None without any."""
    text = file.read_text(encoding="utf-8", errors="replace")
    pattern = re.compile("|".join(f"(?:{command})" for command in commands))
    script = _Script()
    found: list[tuple[_Line, str]] = []
    for line in _logical_lines(text):
        words = _resolve(line.text, line.number, script, note=False)
        match = pattern.search(words)
        assigned = None if match else _ASSIGNMENT.match(line.text)
        if match and not words.lstrip().startswith("echo"):
            resolved = _resolve(line.text, line.number, script, note=not found)
            found.append((line, resolved))
        elif assigned:
            adds = assigned[2] == "+"
            _assign(assigned[1], assigned[3], line.number, script, adds=adds)
    if not found:
        return None
    line, resolved = found[0]
    others = ", ".join(str(one.number) for one, _ in found[1:])
    notes = [f"line {at}: {what} is not known before the script runs: write its value"
             for what, at in script.unknown.items()]  # fmt: skip
    if others:
        notes.append(f"the command of line {line.number} is read; others stand on line {others}")
    return _options(file, line.number, resolved, pattern, notes, text)


def _options(  # noqa: PLR0913, PLR0917 - a command and where it stands
    file: Path, number: int, text: str, pattern: re.Pattern[str], notes: list[str], script: str
) -> Foreign:
    match = pattern.search(text)
    end = match.end() if match else 0
    launcher, command = text[:end], text[match.start() : end] if match else ""
    notes += _processes(launcher)
    data: dict[str, Any] = {}
    places: list[str] = []
    for key, values in _pairs(_words(text[end:])):
        if key is None:
            places.extend(value for value in values if value.endswith(_CONFIG))
            for value in values:
                name, equals, right = value.partition("=")
                if equals and re.fullmatch(r"[\w.]+", name):
                    data[name] = _typed(right)
        elif key in ("config", "c") and values and values[0].endswith(_CONFIG):
            places.append(values[0])
        else:
            # transformers' parser lets `--no_KEY` switch off what is on by default
            is_off = key.startswith("no_") and not values and key not in _OLD_FLAGS
            data[key.removeprefix("no_") if is_off else key] = not is_off and _value(values)
    lines = dict.fromkeys(data, number)
    for place in places[:1]:
        beside = _config_of(file, place, script)
        if beside is None:
            notes.append(f"line {number}: {place} is not found: its keys are missing")
            continue
        notes.append(f"{place} is read with it")
        data, lines = {**beside.data, **data}, {**beside.lines, **lines}
    return Foreign(file, data, lines, " ".join(command.split()), tuple(notes))


def _processes(launcher: str) -> Iterator[str]:
    """Say that several devices share a step, where the script starts a process for each."""
    count = _LAUNCHES.search(launcher) or re.search(r"\bNPROC_PER_NODE=(\S+)", launcher)
    devices = re.search(r"\bCUDA_VISIBLE_DEVICES=[\"']?([\d,]+)", launcher)
    number = count[1] if count else str(len(devices[1].split(","))) if devices else "1"
    if number not in ("1", "0"):
        yield (
            f"the script starts {number} processes: for as many rows a step as there, multiply"
            " gradient_accumulation_steps by it"
        )


def _config_of(file: Path, place: str, script: str) -> Foreign | None:
    """Read the config that a command names: a file, or a here-document of the script itself."""
    heredoc = re.search(
        rf">\s*['\"]?\S*{re.escape(Path(place).name)}['\"]?\s*<<-?\s*['\"]?(\w+)['\"]?\n(.*?)\n\s*\1\b",
        script,
        re.DOTALL,
    )
    if heredoc:
        return parse_foreign(heredoc[2], file)
    found = Foreign(file, {}).place_of(place)
    return read_foreign_yaml(found) if found is not None and found.is_file() else None


def _logical_lines(text: str) -> Iterator[_Line]:
    buffer, start, ending = "", 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        if ending:
            ending = "" if raw.strip() == ending else ending
            continue
        line = re.sub(r"(^|\s)#.*$", r"\1", raw) if "'" not in raw and '"' not in raw else raw
        if line.lstrip().startswith("#"):
            continue
        start = start if buffer else number
        stripped = line.rstrip()
        if stripped.endswith("\\"):
            buffer += stripped[:-1] + " "
            continue
        if not stripped and buffer:
            continue
        buffer += stripped
        if _is_open_array(buffer):
            buffer += " "
            continue
        heredoc = _HEREDOC.search(buffer)
        ending = heredoc[1] if heredoc else ""
        if buffer.strip():
            yield _Line(start, buffer)
        buffer = ""
    if buffer.strip():
        yield _Line(start, buffer)


def _is_open_array(text: str) -> bool:
    return bool(re.match(r"^\s*\w+\+?=\(", text)) and text.count("(") > text.count(")")


def _assign(name: str, text: str, number: int, script: _Script, *, adds: bool = False) -> None:
    if text.startswith("("):
        before = script.arrays.get(name, "") if adds else ""
        script.arrays[name] = f"{before} {text.strip()[1:].rstrip(')')}"
        return
    value = _resolve(text.strip(), number, script, note=False)
    try:
        parts = shlex.split(re.sub(r"\s#.*$", "", value.split(";")[0]))
    except ValueError:
        parts = []
    if not parts or "$(" in value or "`" in value:  # another program's words may hold spaces
        parts = [value.strip("'\" ")]
    script.variables[name] = (parts[0] if parts else "", number)


def _resolve(text: str, number: int, script: _Script, *, note: bool) -> str:
    """Put the values of variables where they stand; one without a value stays as it is."""
    text = _ARRAY.sub(lambda match: script.arrays.get(match[1], match[0]), text)
    text = _ARITHMETIC.sub(lambda match: _computed(match, script), text)

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        if name in script.variables:
            known, line = script.variables[name]
            if note and _VARIABLE.search(known):
                script.unknown.setdefault(f"{name}={known}", line)
            return known
        if match[2] is not None:
            return _resolve(match[2], number, script, note=note)
        if note:
            script.unknown.setdefault(match[0], number)
        return match[0]

    return _VARIABLE.sub(value, text)


def _computed(match: re.Match[str], script: _Script) -> str:
    """Compute `$((32 / BS))` and `$(expr 16 / $N)` of two whole numbers that are known."""

    def known(name: re.Match[str]) -> str:
        return script.variables.get(name[1], (name[0], 0))[0]

    text = re.sub(r"\$?\{?\b([A-Za-z_]\w*)\}?", known, match[1] or match[2])
    parts = re.fullmatch(r"(\d+)\s*\\?([-+*/%])\s*(\d+)", text.strip())
    if parts is None or (parts[2] in "/%" and int(parts[3]) == 0):
        return match[0]
    return str(_OPERATORS[parts[2]](int(parts[1]), int(parts[3])))


def _words(text: str) -> list[str]:
    text = _PROGRAM.sub("$(...)", text)
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    ends = {"|", "||", "&&", ";", "&", ">", ">>", "2>&1", "2>", "&>"}
    starts = ("2>", "&>", "#")  # of what ends a command; within a word, `#` is a part of it
    found = (at for at, word in enumerate(words) if word in ends or word.startswith(starts))
    return words[: next(found, len(words))]


def _pairs(words: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Give each option with the words behind it; None holds the words that no option has."""
    key: str | None = None
    values: list[str] = []
    for word in words:
        option = re.fullmatch(r"--?([A-Za-z][\w.\-]*)(?:=(.*))?", word, re.DOTALL)
        if option is None:
            values.append(word)
            continue
        if key is not None or values:
            yield key, values
        key, values = option[1], [] if option[2] is None else [option[2]]
    if key is not None or values:
        yield key, values


def _value(values: Sequence[str]) -> Any:
    if not values:
        return True
    typed = [_typed(value) for value in values]
    return typed[0] if len(typed) == 1 else typed


def _typed(text: str) -> Any:
    """Read a word as the tool would: a number, true or false, JSON, or text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return text
    if value is None and text.strip().lower() in ("null", "none", "~"):
        return None
    return value if isinstance(value, bool | int | float | Mapping | list) else text
