"""Tell whether a file of ours still says what was written: it carries a digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError

_LAST_LINE = "# what stands above has the sha256 "
_KEY, _VERSION = "seal", "schema_version"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its seal; it comes back from JSON as it went."""
    return {**content, _KEY: _digest_of(content)}


def check_seal(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return an object of ours without its seal; anything without one is returned as it is.

    Raises:
        ArtefactError: it is not what was sealed.
    """
    if _KEY not in content or _VERSION not in content:
        return content
    bare = {key: value for key, value in content.items() if key != _KEY}
    if content[_KEY] != _digest_of(bare):
        raise ArtefactError(
            f"{file} is not what was written: it was changed or damaged since",
            hint="bring the file back, or delete it, so that the verb that wrote it does again",
        )
    return bare


def seal_text(text: str) -> str:
    """Return a YAML file's text with its seal in a last line."""
    return f"{text}{_LAST_LINE}{hashlib.sha256(text.encode()).hexdigest()}\n"


def check_text_seal(text: str, file: Path) -> bool:
    """Refuse a text of ours that is not what was sealed; one without a seal is not looked at.

    Returns: whether it has one.

    Raises:
        ArtefactError: it was changed.
    """
    start = text.rfind(_LAST_LINE)
    if start >= 0 and text != seal_text(text[:start]):
        raise ArtefactError(
            f"{file} is not what was written: it was changed or damaged since",
            hint="bring the file back; a changed recipe is another run: edit a copy elsewhere",
        )
    return start >= 0


def _digest_of(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(content))  # what a reader gets: tuples are lists, keys texts
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
