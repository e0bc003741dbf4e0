"""Recognise what reads a file or a folder: its source, and the options that it needs."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftkit.errors import UsageError
from peftkit.sources.paths import lines_of, open_bytes, suffix_of

FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".md": "text",
    ".po": "gettext",
    ".mo": "gettext",
}
_INSTEAD = {
    ".xlsx": "save it as CSV (UTF-8) there",
    ".xls": "save it as CSV (UTF-8) there",
    ".ods": "save it as CSV (UTF-8) there",
    ".zip": "unpack it first",
    ".pkl": "write it as Parquet: pickles are never read",
}
_SEPARATORS = ";\t|"
_HEAD_BYTES = 1 << 16
_MAX_DOCUMENT_BYTES = 1 << 28
"""A JSON document beyond this is not read to look for its rows."""


@dataclass(frozen=True)
class Recognised:
    """Say which source reads a file, and why with these options."""

    source: str
    options: dict[str, Any]
    """Of the source, `files` among them."""
    reasons: tuple[str, ...] = field(default=())
    """What was seen, a sentence each."""


def recognise(place: Path) -> Recognised:
    """Choose the source that reads a file or a folder, with the options that it needs.

    Raises:
        UsageError: no source reads it, or a folder holds several formats.
        DataError: it cannot be read.
    """
    if place.is_dir():
        return _recognise_folder(place)
    suffix = suffix_of(place)
    if suffix not in FORMATS:
        raise UsageError(
            f"{place}: cannot tell the format from the name",
            hint=_INSTEAD.get(suffix, f"init reads {', '.join(FORMATS)}, also with .gz"),
        )
    name = FORMATS[suffix]
    look = {"csv": _look_at_csv, "json": _look_at_json, "text": _look_at_text}.get(name)
    options, reasons = look(place) if look and place.is_file() else ({}, ())
    return Recognised(name, {"files": place, **options}, reasons)


def _recognise_folder(folder: Path) -> Recognised:
    suffixes = Counter(
        suffix
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (suffix := suffix_of(path)) in FORMATS
        if not path.name.startswith(("dataset_info", "state.json", "dataset_dict", "README"))
    )
    names = dict.fromkeys(FORMATS[suffix] for suffix in suffixes)
    if not names:
        raise UsageError(
            f"{folder} holds no file that a source reads",
            hint=f"init reads {', '.join(FORMATS)}, also with .gz",
        )
    if len(names) > 1:
        counted = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.items())
        raise UsageError(
            f"{folder} holds several formats: {counted}", hint="name the files of one of them"
        )
    (name,) = names
    first = next(
        path for path in sorted(folder.rglob("*")) if suffix_of(path) in suffixes and path.is_file()
    )
    found = recognise(first)
    return Recognised(name, {**found.options, "files": folder}, found.reasons)


def _look_at_csv(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    options: dict[str, Any] = {}
    reasons = []
    encoding = "utf-8" if _is_utf8(file) else "cp1252"
    if encoding != "utf-8":
        options["encoding"] = encoding
        reasons.append(f"{file} is not UTF-8; it is read as {encoding}, Windows' and Latin-1's own")
    with open_bytes(file) as stream:
        head = stream.read(_HEAD_BYTES).decode(encoding, errors="replace")
    default = "\t" if suffix_of(file) == ".tsv" else ","
    counts = {sign: _columns(head, sign) for sign in (default, *_SEPARATORS)}
    best = max(counts, key=lambda sign: counts[sign])
    if counts[default] < 2 <= counts[best]:
        options["sep"] = best
        reasons.append(f"its cells are separated by {best!r}")
    return options, tuple(reasons)


def _columns(head: str, sign: str) -> int:
    """Return how many columns a separator gives, where most lines have as many as the first."""
    lines = head.splitlines()[:50]
    try:
        counts = [len(cells) for cells in csv.reader(lines, delimiter=sign) if cells]
    except csv.Error:
        return 0
    if not counts:
        return 0
    same = sum(count == counts[0] for count in counts)
    return counts[0] if same * 2 > len(counts) else 0


def _is_utf8(file: Path) -> bool:
    with open_bytes(file) as stream:
        try:
            for _, line in lines_of(file, stream):
                line.decode("utf-8")
        except UnicodeDecodeError:
            return False
    return True


def _look_at_json(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Find the key under which one object holds all rows."""
    with open_bytes(file) as stream:
        head = stream.read(_HEAD_BYTES).lstrip()
        if not head.startswith(b"{") or _is_lines(head):
            return {}, ()
        stream.seek(0)
        raw = stream.read(_MAX_DOCUMENT_BYTES + 1)
    if len(raw) > _MAX_DOCUMENT_BYTES:
        return {}, ()
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except ValueError:
        return {}, ()
    lists = {
        key: len(value)
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    }
    if not lists:
        _refuse_elsewhere(file, document)
        return {}, ()
    key = max(lists, key=lambda name: lists[name])
    others = ", ".join(name for name in document if name != key)
    beside = f"; {others} beside it is not read" if others else ""
    return {"field": key}, (f"{file} is one object with {lists[key]:,} rows under {key!r}{beside}",)


def _refuse_elsewhere(file: Path, document: dict[str, Any]) -> None:
    """Say where an object's rows lie that are in no list under one of its keys.

    Raises:
        UsageError: with the command that takes them out.
    """
    values = list(document.values())
    nested = [
        (outer, inner)
        for outer, value in document.items()
        if isinstance(value, dict)
        for inner, rows in value.items()
        if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    ]
    if nested:
        (outer, inner), *_ = nested
        where, rows = f"under {outer}.{inner}", f"d[{outer!r}][{inner!r}]"
    elif len(values) > 1 and all(isinstance(value, dict) for value in values):
        where, rows = "one under each of its keys", "d.values()"
    elif len(values) > 1 and all(isinstance(v, list) and len(v) > 1 for v in values):
        where, rows = "by column", "(dict(zip(d, v)) for v in zip(*d.values()))"
    else:
        return
    code = (
        f"import json; d = json.load(open({str(file)!r})); [print(json.dumps(r)) for r in {rows}]"
    )
    raise UsageError(
        f"{file} is one object, and its rows lie {where}; rows are read from a list or from lines",
        hint=f'python3 -c "{code}" > rows.jsonl && peftkit init rows.jsonl',
    )


def _is_lines(head: bytes) -> bool:
    """Tell JSON lines from one object over many: two lines that are objects by themselves."""
    lines = [line for line in head.splitlines()[:-1] if line.strip()]
    if len(lines) < 2:
        return False
    try:
        return all(isinstance(json.loads(line), dict) for line in lines[:2])
    except ValueError:
        return False


def _look_at_text(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    with open_bytes(file) as stream:
        head = stream.read(_HEAD_BYTES).replace(b"\r\n", b"\n")
    if b"\n\n" in head.strip():
        return {"sample_by": "paragraph"}, ()
    return {}, ()
