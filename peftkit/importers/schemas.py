"""The names of all keys of other tools' schemas, and the version that they were read from."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _schemas() -> dict[str, Any]:
    text = files("peftkit.importers").joinpath("schemas.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def keys_of(tool: str) -> frozenset[str]:
    """Return all keys that a tool's config may have."""
    return frozenset(_schemas()[tool]["keys"])


def version_of(tool: str) -> str:
    """Return the version of the tool whose keys these are."""
    return str(_schemas()[tool]["version"])
