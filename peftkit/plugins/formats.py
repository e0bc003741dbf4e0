"""Texts with columns in braces, as a recipe writes a prompt or a system message.

`{question}` is a column's text, `{#input} ... {/input}` a part that vanishes where that column is
empty, and `{{` and `}}` are braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

_TOKEN = re.compile(r"\{\{|\}\}|\{([#/]?)([^{}#/][^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Column:
    """Stand for the text of a column."""

    name: str


@dataclass(frozen=True)
class Part:
    """Stand for what vanishes where a column is empty."""

    column: str
    pieces: tuple[Any, ...]


@dataclass(frozen=True)
class Format:
    """Hold a text with columns, ready to be filled."""

    pieces: tuple[Any, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns in it, each once."""
        return tuple(dict.fromkeys(_columns(self.pieces)))

    @property
    def optional(self) -> tuple[str, ...]:
        """Name those that stand in parts that vanish without them."""
        always = {piece.name for piece in self.pieces if isinstance(piece, Column)}
        return tuple(name for name in self.columns if name not in always)


def is_format(text: str) -> bool:
    """Tell a text with columns in braces from the name of a column."""
    return "{" in text or "}" in text


@cache
def read_format(text: str) -> Format:
    """Read a text with columns in braces.

    Raises:
        ValueError: a brace stands alone, or a part is not closed; says where.
    """
    stack: list[tuple[str, list[Any]]] = [("", [])]
    place = 0
    for match in _TOKEN.finditer(text):
        stack[-1][1].append(text[place : match.start()])
        place = match.end()
        sign, name = match.group(1), match.group(2)
        if match.group() in ("{{", "}}"):
            stack[-1][1].append(match.group()[0])
        elif name is None:
            raise ValueError(f"a lone {match.group()} at character {match.start()}")
        elif sign == "#":
            stack.append((name, []))
        elif sign == "/":
            column, pieces = stack.pop()
            if not stack or column != name:
                raise ValueError(f"{{/{name}}} closes no part that {{#{name}}} opens")
            stack[-1][1].append(Part(column, tuple(filter(None, pieces))))
        else:
            stack[-1][1].append(Column(name))
    if len(stack) > 1:
        raise ValueError(f"{{#{stack[-1][0]}}} is not closed by {{/{stack[-1][0]}}}")
    return Format(tuple(filter(None, [*stack[0][1], text[place:]])))


def _columns(pieces: tuple[Any, ...]) -> Iterator[str]:
    for piece in pieces:
        if isinstance(piece, Column):
            yield piece.name
        elif isinstance(piece, Part):
            yield piece.column
            yield from _columns(piece.pieces)
