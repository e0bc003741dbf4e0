"""Tell a base model's weights from others under the same name, by the sha256 of their files.

A digest is computed once for a file of some size and time of change, and kept in the cache; of a
file in the Hub's own cache it stands in the name that it is stored under.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.system.checkpoint_files import weight_files

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_KEPT = 1000
SHOWN = 12
"""Digits of a digest that messages show."""


@dataclass(frozen=True)
class BaseIdentity:
    """Say which weights a base has."""

    digests: tuple[str, ...] = ()
    """sha256 of each weight file, sorted: names and folders do not count. Empty where the files are
    not here."""
    revision: str | None = None
    """The commit of a base of the Hub."""

    def differs(self, other: BaseIdentity) -> bool:
        """Tell whether two are known to be different: what cannot be compared is not."""
        if self.digests and other.digests:
            return self.digests != other.digests
        return bool(self.revision and other.revision and self.revision != other.revision)

    def __str__(self) -> str:
        if not self.digests:
            return f"commit {(self.revision or 'unknown')[:SHOWN]}"
        whole = hashlib.sha256(" ".join(self.digests).encode()).hexdigest()
        return f"sha256 {(self.digests[0] if len(self.digests) == 1 else whole)[:SHOWN]}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"sha256": list(self.digests), "revision": self.revision}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> BaseIdentity:
        """Undo `to_json`."""
        return cls(tuple(content.get("sha256") or ()), content.get("revision"))


def identify(folder: Path, revision: str | None = None) -> BaseIdentity:
    """Identify the weights that lie in a folder; by its commit alone where none do."""
    try:
        files = weight_files(folder)
    except ArtefactError:
        return BaseIdentity((), revision)
    known = _read_cache()
    digests = [_digest(file, known) for file in files]
    _write_cache(known)
    return BaseIdentity(tuple(sorted(digests)), revision)


def digest_of(file: Path) -> str:
    """Return a file's sha256, which is kept for its size, time of change and place on the disk."""
    known = _read_cache()
    digest = _digest(file, known)
    _write_cache(known)
    return digest


def _digest(file: Path, known: dict[str, Any]) -> str:
    real = file.resolve()
    if _SHA256.fullmatch(real.name):  # the Hub's cache names large files by it
        return real.name
    at = real.stat()
    stamp = [at.st_size, at.st_mtime_ns, at.st_ino]
    entry = known.get(str(real))
    if isinstance(entry, dict) and entry.get("stamp") == stamp:
        return str(entry["sha256"])
    with real.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    known.pop(str(real), None)
    known[str(real)] = {"stamp": stamp, "sha256": digest}
    return digest


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "peftkit" / "weights.json"


def _read_cache() -> dict[str, Any]:
    try:
        content = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_cache(known: dict[str, Any]) -> None:
    """Keep the newest digests; a home that cannot be written costs time only."""
    file = _cache_file()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(dict(list(known.items())[-_MAX_KEPT:])), encoding="utf-8")
        partial.replace(file)
