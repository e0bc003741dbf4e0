"""Fill texts with columns in braces from a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftkit.errors import DataError, EmptyValueError, UsageError
from peftkit.plugins.formats import Column, Format, Part, is_format, read_format
from peftkit.plugins.rendering import Rendering
from peftkit.sources.columns import describe_kind, look_up, stands_for_nothing


def fill(form: Format, row: Mapping[str, Any]) -> str:
    """Return the text for a row.

    Raises:
        DataError: a column is no text, or all of them are empty.
    """
    values = {name: _text(row, name) for name in form.columns}
    if values and not any(values.values()):
        raise EmptyValueError(f"{', '.join(values)}: all of them are empty")
    return _fill(form.pieces, values)


def check_format(key: str, text: str) -> None:
    """Refuse an option whose braces cannot be read.

    Raises:
        UsageError: says what is wrong with them.
    """
    try:
        if is_format(text) and not read_format(text).columns:
            raise ValueError("it names no column")
    except ValueError as error:
        hint = "columns stand in braces, {question}; a brace itself is written {{ or }}"
        raise UsageError(f"{key}: {error}", hint=hint) from None


def columns_of(text: str) -> tuple[str, ...]:
    """Name the columns that an option reads: those of its format, or the one that it names."""
    return read_format(text).columns if is_format(text) else (text,)


def rendering_for(rendering: Rendering, row: Mapping[str, Any]) -> Rendering:
    """Return how a row becomes text, its own system message filled in.

    Raises:
        DataError: a column of it is no text.
    """
    if not rendering.system or not is_format(rendering.system):
        return rendering
    try:
        return replace(rendering, system=fill(read_format(rendering.system), row))
    except EmptyValueError:
        return replace(rendering, system=None)


def system_columns(rendering: Rendering) -> tuple[str, ...]:
    """Name the columns of a system message."""
    system = rendering.system or ""
    return read_format(system).columns if is_format(system) else ()


def _fill(pieces: tuple[Any, ...], values: Mapping[str, str]) -> str:
    filled = ""
    for piece in pieces:
        if isinstance(piece, Part):
            filled += _fill(piece.pieces, values) if values[piece.column] else ""
        else:
            filled += values[piece.name] if isinstance(piece, Column) else piece
    return filled


def _text(row: Mapping[str, Any], name: str) -> str:
    value = look_up(row, name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{name} is not text but {describe_kind(value)}")
    is_empty = value is None or not value.strip() or stands_for_nothing(value)
    return "" if is_empty else str(value)
