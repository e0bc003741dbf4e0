"""Change values in a recipe's text and leave the rest of it, comments included, as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from peftkit.errors import RecipeError
from peftkit.recipe.overrides import apply_overrides
from peftkit.recipe.yaml_file import (
    compose_text,
    dump_inline,
    dump_yaml,
    parse,
    split,
)


def edit_text(text: str, file: str, changes: Mapping[str, Any]) -> str:
    """Return a recipe's text with these dotted keys set to these values.

    Comments, order and spelling stay, except where an anchor or a merge stands in the way: then
    the whole recipe is written anew, without comments, rather than wrong.

    Args:
        file: what errors call the text.

    Raises:
        RecipeError: the text is no recipe, or a key has no place in it.
    """
    overrides = [f"{key}={dump_inline(value)}" for key, value in changes.items()]
    wanted = apply_overrides(file, parse(text, file).data, overrides)
    if wanted.problems:
        raise RecipeError(file, list(wanted.problems))
    edited = text
    for key, value in changes.items():
        edited = _set(edited, file, split(key), value)
    try:
        is_right = parse(edited, file).data == wanted.data
    except RecipeError:
        is_right = False
    return edited if is_right else dump_yaml(wanted.data)


def _set(text: str, file: str, parts: list[str], value: Any) -> str:
    """Set one key: replace its value where it stands, or add it to the deepest mapping there is."""
    node: Any = compose_text(text, file)
    for depth, part in enumerate(parts):
        if not isinstance(node, yaml.MappingNode):
            break
        child = next((v for k, v in node.value if k.value == part), None)
        if child is None:
            return _insert(text, node, part, _nest(parts[depth + 1 :], value))
        node = child
    else:
        return _replace(text, node, value)
    return _replace(text, node, _nest(parts[depth:], value))


def _replace(text: str, node: yaml.Node, value: Any) -> str:
    start, end = node.start_mark.index, _end(node)
    written = dump_inline(value)
    if start == end:  # nothing stood after the colon
        written = f" {written}"
    elif isinstance(node, yaml.CollectionNode) and not node.flow_style:
        # A block began on its own line; what replaces it goes behind the colon.
        start = len(text[:start].rstrip())
        written = f" {written}"
    return text[:start] + written + text[end:]


def _insert(text: str, node: yaml.MappingNode, key: str, value: Any) -> str:
    pair = f"{dump_inline(key)}: {dump_inline(value)}"
    if node.flow_style:
        at = _end(node) - 1
        kept = text[:at].rstrip()
        separator = "" if kept.endswith("{") else " " if kept.endswith(",") else ", "
        return kept + separator + pair + text[at:]
    last_key, last_value = node.value[-1]
    end = max(_end(last_value), last_key.end_mark.index + 1)
    line_end = text.find("\n", end)
    at = len(text) if line_end < 0 else line_end
    return text[:at] + "\n" + " " * node.start_mark.column + pair + text[at:]


def _end(node: yaml.Node) -> int:
    """Return where a node's own text ends; PyYAML lets a block end where the next token starts."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(_end(value) for _, value in node.value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(_end(child) for child in node.value)
    index: int = node.end_mark.index
    return index


def _nest(parts: list[str], value: Any) -> Any:
    for part in reversed(parts):
        value = {part: value}
    return value
