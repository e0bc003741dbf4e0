"""Conversations about the sample's functions and classes, made of nothing but their docstrings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FIRST = "Summarize the text."
_PARAMETERS = "Which parameters does it take?"
_MODULE = "Which module is it in?"


def as_dialogues(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ask three things about each documented name, of which the later ones only say `it`.

    A hash of the document says which of the two later questions comes last, so that the last answer
    cannot be known from its place.
    """
    return [{**row, "messages": _talk(row)} for row in rows if _module(row["name"])]


def _talk(row: Mapping[str, Any]) -> list[dict[str, str]]:
    turns = [
        (_PARAMETERS, ", ".join(parameters(row["document"])) or "none"),
        (_MODULE, _module(row["name"])),
    ]
    if hashlib.sha256(row["document"].encode()).digest()[0] % 2:
        turns.reverse()
    asked = [(f"{_FIRST}\n\n{row['document']}", row["summary"]), *turns]
    return [
        {"role": role, "content": text}
        for pair in asked
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _module(name: str) -> str:
    """Return the parts of a dotted name before the first class or the last part."""
    parts = name.split(".")[:-1]
    first = next((at for at, part in enumerate(parts) if part[:1].isupper()), len(parts))
    return ".".join(parts[:first])


def parameters(document: str) -> list[str]:
    """Name the parameters of the signature that a document begins with, in order."""
    line = document.partition("\n")[0]
    names = (part.partition(":")[0].partition("=")[0].strip(" *") for part in _arguments(line))
    return [name for name in names if name.isidentifier() and name not in ("self", "cls")]


def _arguments(line: str) -> Iterator[str]:
    """Cut a signature at the commas that stand in no inner bracket."""
    depth, part = 0, ""
    for character in line[line.find("(") :] if "(" in line else "":
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 or (depth == 1 and character == ","):
            yield part
            part = ""
            if depth == 0:
                return
        elif depth > 1 or character != "(":
            part += character
