"""Read a recipe's YAML: plain data, and the line of every key.

YAML as people expect it: the 1.2 core schema. PyYAML alone reads `2e-4` as text, `no` as
False, `1:30` as 90 and keeps the last of two equal keys without a word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from peftkit.errors import Problem, RecipeError

MAX_VALUES = 20_000
"""Values in one file after aliases are expanded; a shipped recipe has about 40."""
MAX_DEPTH = 40
MAX_BYTES = 1 << 20
"""Size of a file that is still a recipe and not, say, the data."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """Compose nodes by the YAML 1.2 core schema; values are constructed here, not by PyYAML."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML reads this name


class _Dumper(yaml.SafeDumper):
    """Quote what either version of YAML would read as something other than text."""


# Octal, hexadecimal, `1_000`, `1:30` and dates match nothing here and stay text, so that the
# gate can refuse them where a number is expected instead of taking another number.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_TAG + "null", _NULL, ["~", "n", "N", ""])
    _class.add_implicit_resolver(_TAG + "bool", _BOOL, list("tTfF"))
    _class.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))
    _class.add_implicit_resolver(_TAG + "merge", re.compile(r"^<<$"), ["<"])


@dataclass(frozen=True)
class Document:
    """Hold one parsed file."""

    file: str
    """As the user named it."""
    text: str
    data: dict[str, Any]
    lines: dict[str, int]
    """Dotted key -> 1-based line, list items as `key.0`; see `join`."""


def join(parent: str, part: str | int) -> str:
    """Append one part to a dotted key; a part that holds a dot is quoted: `a."b.c"`."""
    text = str(part)
    if text != text.strip() or not text or any(sign in text for sign in '."='):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{parent}.{text}" if parent else text


def split(key: str) -> list[str]:
    """Undo `join`: cut a dotted key into its parts.

    Raises:
        ValueError: a part is empty or a quote is not closed.
    """
    parts: list[str] = []
    position = 0
    pattern = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."]+)')
    while True:
        match = pattern.match(key, position)
        if match is None:
            raise ValueError(f"{key!r} is not a dotted key")
        quoted, plain = match.groups()
        parts.append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        position = match.end()
        if position == len(key):
            return parts
        if key[position] != ".":
            raise ValueError(f"{key!r} is not a dotted key")
        position += 1


def parent_of(key: str) -> str:
    """Return the dotted key that holds this one; empty for a section."""
    return ".".join(join("", part) for part in split(key)[:-1])


def read_yaml(file: Path) -> Document:
    """Read a recipe file.

    Raises:
        RecipeError: it is missing, not UTF-8, not YAML, or not a mapping; with the line.
    """
    name = str(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = _suggest_sibling(file) or "peftkit recipes lists those that ship"
        raise _error(name, None, "there is no such file", hint) from None
    except IsADirectoryError:
        raise _error(name, None, "this is a folder", "name the recipe file in it") from None
    except OSError as error:
        raise _error(name, None, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise _error(name, None, f"larger than {MAX_BYTES >> 20} MiB", "is this the data?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _error(
            name, line, f"byte {content[error.start]:#04x} is not UTF-8", "save the file as UTF-8"
        ) from None
    return parse(text, name)


def parse(text: str, file: str) -> Document:
    """Parse a recipe's text.

    Raises:
        RecipeError: see `read_yaml`; every duplicate or refused key at once.
    """
    reader = _Reader(file)
    node = reader.compose(text)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"):
        raise _error(file, None, "the file is empty", "peftkit recipes summarize-lora")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "one value"
        raise _error(
            file,
            node.start_mark.line + 1,
            f"a recipe is a mapping of sections, this is {kind}",
            "see peftkit explain recipe",
        )
    data = reader.construct(node, "", 0)
    if reader.problems:
        raise RecipeError(file, reader.problems)
    return Document(file=file, text=text, data=data, lines=reader.lines)


def parse_value(text: str, file: str) -> Any:
    """Parse one value as YAML, e.g. the right side of an override.

    Raises:
        RecipeError: it is not YAML.
    """
    reader = _Reader(file)
    node = reader.compose(text)
    value = None if node is None else reader.construct(node, "", 0)
    if reader.problems:
        raise RecipeError(file, reader.problems)
    return value


def compose_text(text: str, file: str) -> yaml.Node | None:
    """Parse into nodes, which know where in the text they stand.

    Raises:
        RecipeError: it is not YAML.
    """
    return _Reader(file).compose(text)


def dump_inline(value: Any) -> str:
    """Write plain data on one line, as it may stand after `key: `."""
    text: str = yaml.dump(
        [value],
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True,
        width=sys.maxsize,
    )
    return text.strip().removeprefix("[").removesuffix("]")


def dump_yaml(data: Any) -> str:
    """Write plain data so that `parse`, and any other YAML reader, reads the same back."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _Reader:
    """Turn composed nodes into data, noting lines and problems on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.num_values = 0

    def compose(self, text: str) -> yaml.Node | None:
        """Return the only document's root node."""
        try:
            loader = _Loader(text)
            try:
                node: yaml.Node | None = loader.get_single_node()
                return node
            finally:
                loader.dispose()
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            code = error.character if isinstance(error.character, int) else ord(error.character)
            raise _error(
                self.file, line, f"character U+{code:04X} is not allowed in YAML", "remove it"
            ) from None
        except yaml.MarkedYAMLError as error:
            raise _syntax_error(self.file, text, error) from None
        except RecursionError:
            raise _error(self.file, None, f"nested deeper than {MAX_DEPTH} levels") from None

    def construct(self, node: yaml.Node, key: str, depth: int) -> Any:
        """Return a node's value; `key` is its dotted key."""
        self.num_values += 1
        if self.num_values > MAX_VALUES or depth > MAX_DEPTH:
            what = "deep" if depth > MAX_DEPTH else "large once its aliases are expanded"
            raise _error(self.file, node.start_mark.line + 1, f"too {what} for a recipe")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, key, "seq")
            items = []
            for index, child in enumerate(node.value):
                path = join(key, index)
                self.lines[path] = child.start_mark.line + 1
                items.append(self.construct(child, path, depth + 1))
            return items
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 - PyYAML composes no other
        self._refuse_tag(node, key, "map")
        return self._mapping(node, key, depth)

    def _mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged.update(self._merge(value_node, key, depth))
        if merged:
            self._forget(key, {join(key, str(one.value)) for one, _ in node.value})
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            line = key_node.start_mark.line + 1
            name = self._key(key_node, key)
            if name is None:
                continue
            path = join(key, name)
            if name in first_line:
                self._problem(
                    line,
                    path,
                    f"this key already stands on line {first_line[name]}",
                    "keep one of the two",
                )
                continue
            first_line[name] = line
            self.lines[path] = line
            own[name] = self.construct(value_node, path, depth + 1)
        return {**{k: v for k, v in merged.items() if k not in own}, **own}

    def _merge(self, node: yaml.Node, key: str, depth: int) -> dict[str, Any]:
        """Return what `<<` brings; earlier mappings of a list win, as YAML's merge type says."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for child in reversed(nodes):
            if not isinstance(child, yaml.MappingNode):
                self._problem(
                    child.start_mark.line + 1, join(key, "<<"), "<< takes a mapping or its alias"
                )
                continue
            merged.update(self.construct(child, key, depth + 1))
        return merged

    def _forget(self, key: str, paths: set[str]) -> None:
        """Drop the lines of the merged values that a mapping replaces."""
        below = [line for line in self.lines if line.startswith(key)]
        for old in [one for one in below if not paths.isdisjoint(_above(one))]:
            del self.lines[old]

    def _key(self, node: yaml.Node, parent: str) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
            return str(node.value)
        shown = str(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        self._problem(
            node.start_mark.line + 1,
            join(parent, shown),
            f"a key is text, this is {_describe_tag(node)}",
            f"write '{shown}' in quotes" if isinstance(node, yaml.ScalarNode) else None,
        )
        return None

    def _scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind in ("str", "merge"):
            return text
        if kind not in _CONVERTERS:
            self._refuse_tag(node, key, "str")
            return None
        pattern, convert = _CONVERTERS[kind]
        if not pattern.match(text):
            self._problem(node.start_mark.line + 1, key, f"{text!r} is not {kind}")
            return None
        return convert(text)

    def _refuse_tag(self, node: yaml.Node, key: str, allowed: str) -> None:
        if node.tag != _TAG + allowed:
            shown = node.tag.replace(_TAG, "!!")
            self._problem(
                node.start_mark.line + 1,
                key,
                f"the tag {shown} is not allowed in a recipe",
                "write plain values",
            )

    def _problem(self, line: int, key: str, problem: str, suggestion: str | None = None) -> None:
        self.problems.append(Problem(self.file, line, key, problem, suggestion))


def _above(key: str) -> Iterator[str]:
    """Give the keys that a dotted key stands under; where a quoted name has dots, others too."""
    return (key[:at] for at, sign in enumerate(key) if sign == ".")


def _to_int(text: str) -> int | str:
    # Python refuses to convert more than 4300 digits; such a "number" is text.
    return int(text) if len(text) < 100 else text


def _to_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_CONVERTERS: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "null": (_NULL, lambda _: None),
    "bool": (_BOOL, lambda text: text.lower() == "true"),
    "int": (_INT, _to_int),
    "float": (re.compile(f"{_INT.pattern}|{_FLOAT.pattern}"), _to_float),
}


def _describe_tag(node: yaml.Node) -> str:
    names = {"bool": "true or false", "int": "a number", "float": "a number", "null": "empty"}
    return names.get(node.tag.removeprefix(_TAG), "not")


def _syntax_error(file: str, text: str, error: yaml.MarkedYAMLError) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    problem = error.problem or "not YAML"
    suggestion = None
    if "document" in problem or "document" in (error.context or ""):
        problem, suggestion = "a second document begins here", "one recipe is one file"
    elif "undefined alias" in problem:
        suggestion = "define it above with &NAME"
    elif mark and "\t" in _line_at(text, mark.line):
        problem, suggestion = "a tab cannot indent YAML", "use spaces"
    elif "mapping values are not allowed" in problem:
        suggestion = "quote a value that holds ': '"
    elif error.context:
        start = error.context_mark.line + 1 if error.context_mark else None
        problem = f"{problem} {error.context}" + (f" from line {start}" if start else "")
    return _error(file, line, problem, suggestion)


def _line_at(text: str, line: int) -> str:
    # PyYAML also breaks lines at U+0085, U+2028 and U+2029, as str.splitlines does.
    lines = text.splitlines()
    return lines[line] if line < len(lines) else ""


def _suggest_sibling(file: Path) -> str | None:
    from difflib import get_close_matches

    try:
        names = [child.name for child in file.parent.iterdir()]
    except OSError:
        return None
    close = get_close_matches(file.name, names, n=1)
    return f"did you mean {file.parent / close[0]}?" if close else None


def _error(file: str, line: int | None, problem: str, suggestion: str | None = None) -> RecipeError:
    return RecipeError(file, [Problem(file, line, "", problem, suggestion)])
