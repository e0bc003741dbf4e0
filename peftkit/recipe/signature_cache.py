"""Keep what was read from native classes, for exactly the versions it was read from.

Two stores: a table for the tested pins that ships with peftkit, and the user's cache folder.
An entry names its owners (distribution -> version, or module -> digest of its source) and counts
only while all of them are still installed so.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CACHE_FORMAT = 1
"""Part of every store; raise it whenever what is read, or `Kind`, changes."""
TESTED = Path(__file__).with_name("tested_signatures.json")


@cache
def source_digest(module: str) -> str:
    """Return a digest of a module's source without importing the module itself."""
    try:
        spec = find_spec(module)
        content = Path(spec.origin).read_bytes() if spec and spec.origin else None
    except (ImportError, ValueError, OSError):
        content = None
    if content is None:
        return "none"
    return f"sha256:{hashlib.sha256(content).hexdigest()[:16]}"


@cache
def installed_version(distribution: str) -> str | None:
    """Return an installed version; None too for an editable one, whose code may change under it."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return None
    origin = found.read_text("direct_url.json")
    if origin and json.loads(origin).get("dir_info", {}).get("editable"):
        return None
    # Parsing all headers takes 20 times as long as finding the one that is wanted.
    match = re.search(r"^Version: (.+)$", found.read_text("METADATA") or "", re.MULTILINE)
    return match[1].strip() if match else found.version


def cached(
    reference: str, read: Callable[[], dict[str, Any]], *, documented: bool = False
) -> dict[str, Any]:
    """Return the entry of `module:Class`, reading and storing it where no store has it.

    Args:
        read: imports the class; returns an entry with its owners under `versions`.
        documented: pass over the shipped table, which holds no docstrings.
    """
    tested = None if documented else _tested(reference)
    if tested is not None and is_installed(tested):
        return tested
    prefix = _cache_dir() / reference.replace(":", ".")
    with suppress(OSError):
        for file in sorted(prefix.parent.glob(f"{prefix.name}-*.json")):
            entry = _read_entry(file)
            if entry is not None and is_installed(entry):
                return entry
    entry = read()
    if is_installed(entry):
        _write_entry(prefix, entry)
    return entry


def is_installed(entry: Mapping[str, Any]) -> bool:
    """Tell whether everything that owns an entry is installed as it was when it was read."""
    versions: Mapping[str, str] = entry["versions"]
    return bool(versions) and all(
        (source_digest(name) if v.startswith("sha256:") else installed_version(name)) == v
        for name, v in versions.items()
    )


def _tested(reference: str) -> dict[str, Any] | None:
    """Return the shipped entry; the file holds one a line, so that only this one is parsed."""
    content = _read_tested()
    start = content.find(f"\n{json.dumps(reference)}:".encode())
    if start < 0:
        return None
    end = content.find(b"\n", start + 1)
    entry: dict[str, Any] = json.loads(b"{" + content[start:end].rstrip(b",") + b"}")[reference]
    return entry


@cache
def _read_tested() -> bytes:
    try:
        content = TESTED.read_bytes()
    except OSError:
        return b""
    return content if content.startswith(f'{{"format":{CACHE_FORMAT},'.encode()) else b""


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as in some containers
        root = Path(os.devnull)  # nothing can be read or written below it
    return root / "peftkit" / f"signatures-{CACHE_FORMAT}"


def _read_entry(file: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    is_sound = isinstance(entry, dict) and isinstance(entry.get("versions"), dict)
    return entry if is_sound and ("options" in entry or "table" in entry) else None


def _write_entry(prefix: Path, entry: Mapping[str, Any]) -> None:
    """Add a cache entry; a cache that cannot be written only costs time."""
    digest = hashlib.sha256(json.dumps(entry["versions"], sort_keys=True).encode()).hexdigest()
    file = prefix.with_name(f"{prefix.name}-{digest[:12]}.json")
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(entry), encoding="utf-8")
        partial.replace(file)
