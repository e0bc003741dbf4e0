"""Read the text of one column, and say which columns are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from peftkit.errors import DataError, EmptyValueError


def read_text(row: Mapping[str, Any], column: str) -> str:
    """Return a row's text in one column.

    Args:
        column: a column's name, or a path into a nested one, e.g. `translation.en`.

    Raises:
        DataError: the value is null, empty, only whitespace, or no text.
    """
    value = look_up(row, column)
    if value is None:
        raise EmptyValueError(f"{column} is null")
    if not isinstance(value, str):
        raise DataError(f"{column} is not text but {describe_kind(value)}")
    if not value:
        raise EmptyValueError(f"{column} is empty")
    if not value.strip():
        raise EmptyValueError(f"{column} is only whitespace")
    return value


STANDS_FOR_NOTHING = frozenset({"nan", "null", "<na>", "#n/a", "nat"})
"""How tables write that a cell holds nothing, in small letters."""


def stands_for_nothing(text: str) -> bool:
    """Tell whether a text is what a table writes into a cell that holds nothing."""
    return text.strip().lower() in STANDS_FOR_NOTHING


def read_asked_text(row: Mapping[str, Any], column: str) -> str:
    """Return a row's text in a column that is read; an answer may well be `null`, a question not.

    Raises:
        DataError: as `read_text`, or the text stands for nothing, e.g. `nan`.
    """
    text = read_text(row, column)
    if stands_for_nothing(text):
        raise EmptyValueError(f"{column} is {text.strip()!r}, which stands for no text")
    return text


def require_columns(needed: Sequence[str], available: Sequence[str], *, where: str) -> None:
    """Refuse rows that lack a column.

    Args:
        where: the split and its source, for the message.

    Raises:
        DataError: names every missing column, the available ones, and the nearest.
    """
    missing = [
        column
        for column in needed
        if column not in available and column.partition(".")[0] not in available
    ]
    if not missing:
        return
    columns = "column" if len(missing) == 1 else "columns"
    names = ", ".join(repr(column) for column in missing)
    near = [get_close_matches(column, available, n=1, cutoff=0.6) for column in missing]
    guesses = [match[0] for match in near if match]
    hint = "name the columns in data.task"
    if guesses:
        hint = f"did you mean {', '.join(guesses)}?"
    raise DataError(
        f"{where} has no {columns} {names}; it has {', '.join(available) or 'none'}", hint=hint
    )


def describe_kind(value: object) -> str:
    """Name a value's kind as a data file's author would."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true/false"),
        ((int, float), "a number"),
        (str, "text"),
        (Mapping, "an object"),
        ((list, tuple), "a list"),
        (bytes, "bytes"),
    )
    if value is None:
        return "null"
    for kind, name in kinds:
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"


def look_up(row: Mapping[str, Any], column: str) -> Any:
    """Return a row's value in a column, or at a path into a nested one; None where it has none."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def put(row: dict[str, Any], column: str, value: str) -> None:
    """Set a column, or a path into a nested one (`translation.en`)."""
    *parents, last = column.split(".")
    for part in parents:
        held = row.get(part)
        row[part] = dict(held) if isinstance(held, Mapping) else {}
        row = row[part]
    row[last] = value
