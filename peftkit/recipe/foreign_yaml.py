"""Read another tool's YAML or JSON as that tool does: YAML 1.1, and the last of two equal keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from peftkit.errors import Problem, RecipeError
from peftkit.plugins.importer import Foreign
from peftkit.recipe.yaml_file import MAX_BYTES, join

MAX_VALUES = 20_000
_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$|^[-+]?\.\d+[eE][-+]?\d+$")
_ENVIRONMENT = re.compile(
    r"\$\{(?:env:|oc\.env:)?([A-Z][A-Z0-9_]*)(?:[,:]-?([^}]*))?\}|\$([A-Z_]+)"
)
"""A variable of the environment; OmegaConf's `${name}` of another key is in small letters."""


class _Loader(yaml.SafeLoader):
    """Read `1e-4` as a number, which tools get from their own conversions."""


_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))


def read_foreign_yaml(file: Path) -> Foreign:
    """Read a file into plain data with the line of every key.

    Raises:
        RecipeError: it is missing, too large, not UTF-8, not YAML, or not a mapping.
    """
    name = str(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _error(name, None, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise _error(name, None, f"larger than {MAX_BYTES >> 20} MiB, which no config is")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _error(name, None, "is not UTF-8", "save the file as UTF-8") from None
    return parse_foreign(text, file)


def parse_foreign(text: str, file: Path) -> Foreign:
    """Read a config's text; see `read_foreign_yaml`."""
    reader = _Reader()
    try:
        loader = _Loader(text.replace("\t", "    ") if file.suffix == ".json" else text)
        try:
            node = loader.get_single_node()
            data = reader.read(loader, node, "", ()) if node else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise _error(str(file), line, error.problem or "not YAML") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise _error(str(file), None, f"not YAML: {error}") from None
    if not isinstance(data, dict):
        raise _error(str(file), None, "holds no mapping of keys to values")
    return Foreign(file, data, reader.lines, notes=tuple(reader.notes))


class _Reader:
    """Turn nodes into data, noting lines, repeated keys and variables on the way."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.notes: list[str] = []
        self.num_values = 0

    def read(self, loader: _Loader, node: yaml.Node, key: str, above: tuple[int, ...]) -> Any:
        """Return a node's value; `above` are the nodes that hold it."""
        self.num_values += 1
        if self.num_values > MAX_VALUES or id(node) in above:
            raise yaml.YAMLError("too large, or an alias of itself")
        above = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            items = []
            for at, child in enumerate(node.value):
                path = join(key, at)
                self.lines[path] = child.start_mark.line + 1
                items.append(self.read(loader, child, path, above))
            return items
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, key, above)
        value = loader.construct_object(node)
        if isinstance(value, str):
            self._look_for_variables(value, node.start_mark.line + 1, key)
        return value if isinstance(value, str | int | float | None) else str(node.value)

    def _mapping(
        self, loader: _Loader, node: yaml.MappingNode, key: str, above: tuple[int, ...]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                is_list = isinstance(value_node, yaml.SequenceNode)
                for one in reversed(value_node.value if is_list else [value_node]):
                    brought = self.read(loader, one, key, above)
                    merged.update(brought if isinstance(brought, dict) else {})
                continue
            name = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            path, line = join(key, name), key_node.start_mark.line + 1
            if name in found:
                self.notes.append(f"line {line}: {path} is given again; this one counts, as there")
            self.lines[path] = line
            found[name] = self.read(loader, value_node, path, above)
        return {**merged, **found}

    def _look_for_variables(self, text: str, line: int, key: str) -> None:
        for match in _ENVIRONMENT.finditer(text):
            name = match[1] or match[3]
            self.notes.append(
                f"line {line}: {key} holds the variable {name}, whose value is not known here:"
                " write it into the recipe"
            )


def _error(file: str, line: int | None, problem: str, suggestion: str | None = None) -> RecipeError:
    return RecipeError(file, [Problem(file, line, "", problem, suggestion)])
