"""Read rows from JSON lines or from one JSON document, naming every malformed line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peftkit.errors import DataError, ResourceError
from peftkit.sources.columns import describe_kind
from peftkit.sources.paths import lines_of, not_utf8, open_bytes
from peftkit.sources.rows import BadLines, Row
from peftkit.system.units import gibibytes

_SMALL_BYTES = 8 << 20
"""Of a document that is read without asking how much memory it takes."""
_VALUE_BYTES = 80
"""What CPython takes for a small value and its place in a list, or in an object."""
_MAX_VALUES = 1 << 20
"""Of one row, counted by its punctuation; prose has one comma in a hundred characters."""
HINT = "each line holds one JSON object: check that line with `python -m json.tool`"


def read_json(files: Sequence[Path], field: str | None, bad: BadLines) -> Iterator[Row]:
    """Give the rows of JSON lines, or of a document that is a list of objects.

    Args:
        field: the key of a JSON document that holds the list of rows.
        bad: takes the malformed lines.

    Raises:
        DataError: a file is not UTF-8, or a whole document is malformed.
        ResourceError: a whole document does not fit in memory.
    """
    for path in files:
        if field is not None or _is_list(path):
            yield from _read_document(path, field, bad)
        else:
            yield from _read_lines(path, bad)


def _is_list(path: Path) -> bool:
    with open_bytes(path) as stream:
        while block := stream.read(4096):
            head = block.lstrip()
            if head:
                return head.startswith(b"[")
    return False


def _read_lines(path: Path, bad: BadLines) -> Iterator[Row]:
    prefix = f"{path}:"
    offset = 0
    with open_bytes(path) as stream:
        offset = stream.tell()
        for number, raw in lines_of(path, stream):
            if len(raw) > _MAX_VALUES and _num_values(raw) > _MAX_VALUES:
                raise DataError(
                    f"{prefix}{number}: the row has more than {_MAX_VALUES:,} values",
                    hint="a row is what is trained at once: write it as several",
                )
            try:
                values = json.loads(raw.decode("utf-8")) if raw.strip() else None
            except UnicodeDecodeError as error:
                raise not_utf8(path, error, line=number, start=offset) from None
            except json.JSONDecodeError as error:
                if number == 1 and raw.lstrip().startswith(b"{"):
                    _refuse_object(path)
                bad.add(f"{prefix}{number}", _describe(error, raw))
                values = None
            except (RecursionError, ValueError) as error:
                bad.add(f"{prefix}{number}", str(error) or type(error).__name__)
                values = None
            offset += len(raw)
            if isinstance(values, dict):
                yield Row(prefix, number, values)
            elif values is not None:
                bad.add(
                    f"{prefix}{number}", f"a row must be an object, but is {describe_kind(values)}"
                )


def _describe(error: json.JSONDecodeError, raw: bytes) -> str:
    text = raw.decode("utf-8").strip()
    start = max(error.pos - 20, 0)
    excerpt = text[start : start + 40]
    return f"{error.msg} at column {error.colno}, near {excerpt!r}"


def _read_document(path: Path, field: str | None, bad: BadLines) -> Iterator[Row]:
    document = _load_document(path)
    if field is not None:
        if not isinstance(document, dict) or field not in document:
            keys = ", ".join(document) if isinstance(document, dict) else describe_kind(document)
            raise DataError(f"{path} has no field {field!r}; it has {keys}")
        document = document[field]
    if not isinstance(document, list):
        raise DataError(
            f"{path}: {field or 'the document'} is {describe_kind(document)}, not a list of rows"
        )
    prefix = f"{path} row "
    for number, values in enumerate(document):
        if isinstance(values, dict):
            yield Row(prefix, number, values)
        else:
            bad.add(f"{prefix}{number}", f"a row must be an object, but is {describe_kind(values)}")


def _load_document(path: Path) -> Any:
    with open_bytes(path) as stream:
        start = stream.tell()
        raw = stream.read()
    _check_room(path, raw)
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise not_utf8(path, error, line=line, start=start) from None
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise DataError(
            f"{place}: {error.msg} at column {error.colno}",
            hint=f"check the file with `python -m json.tool {path}`",
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def _check_room(path: Path, raw: bytes) -> None:
    """Refuse a document that would not fit in memory once it is parsed, which is all at once."""
    from peftkit.system.machine import host_memory

    if len(raw) < _SMALL_BYTES:
        return
    num_values = _num_values(raw)
    needed, free = 2 * len(raw) + _VALUE_BYTES * num_values, host_memory()[1]
    if needed > free:
        raise ResourceError(
            f"{path} is one document, which takes about {gibibytes(needed)} of memory to read, of"
            f" which {gibibytes(free)} are free",
            hint=f"write it as JSON lines: jq -c '.[]' {path} > rows.jsonl",
        )


def _num_values(raw: bytes) -> int:
    return sum(map(raw.count, (b",", b"[", b"{")))


def _refuse_object(path: Path) -> None:
    """Explain a file that is one JSON object over many lines, if it is one.

    Raises:
        DataError: names the fields that hold lists of rows.
    """
    try:
        document = _load_document(path)
    except DataError:
        return
    lists = [name for name, value in document.items() if isinstance(value, list)]
    hint = "write one object a line, or one list of objects"
    if lists:
        hint = f"add `field: {lists[0]}` beside `files`"
    raise DataError(f"{path} is one JSON object over several lines, not rows", hint=hint)
