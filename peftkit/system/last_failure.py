"""Keep what the last bug of ours raised, on this machine alone, for whoever wants to report it."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def keep_failure(arguments: Sequence[str], error: BaseException) -> None:
    """Keep an error with where it was raised; one that cannot be kept is only not reported."""
    frames = traceback.extract_tb(error.__traceback__)
    content = {
        "arguments": list(arguments),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "error": f"{type(error).__name__}: {error}",
        "frames": [f"{one.filename}:{one.lineno} in {one.name}" for one in frames],
    }
    file = _place()
    with suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
        file.chmod(0o600)


def last_failure() -> dict[str, Any]:
    """Return what was kept; empty where nothing was."""
    try:
        content = json.loads(_place().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _place() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(base) if base else Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as in some containers
        root = Path(os.devnull)
    return root / "peftkit" / "last-failure.json"
