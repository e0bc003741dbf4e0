"""What tells one run from another: what its resolved recipe trains, on which rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DEALT = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""How a step's rows are dealt out to accumulated batches."""


def identity(resolved: Mapping[str, Any], fingerprint: str, *, num_processes: int = 1) -> str:
    """Return the sha256 that tells one run from another: its resolved recipe and its rows.

    How a step's rows are dealt out to processes and accumulated batches does not count; how many
    they are does.

    Where data files lie does not count, since the fingerprint stands for what is in them; where
    the base model and a continued adapter lie does.
    """
    counted = {key: value for key, value in resolved.items() if key != "decisions"}
    counted["data"] = _without_folders(counted.get("data"))
    ((name, options),) = counted["method"].items()
    kept = {key: value for key, value in options.items() if key not in _DEALT}
    counted["method"] = {name: {**kept, "rows": rows_per_step(resolved, num_processes)}}
    model = dict(counted.get("model") or {})
    if isinstance(model.get("chat_template"), str):
        model["chat_template"] = Path(model["chat_template"]).name
    counted["model"] = model
    text = json.dumps([counted, fingerprint], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def rows_per_step(resolved: Mapping[str, Any], num_processes: int) -> int:
    """Count the rows that so many processes read in a step of a resolved recipe."""
    (options,) = resolved["method"].values()
    return num_processes * math.prod(int(options.get(key) or 1) for key in _DEALT)


def _without_folders(value: Any) -> Any:
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    return [_without_folders(item) for item in value] if isinstance(value, list) else value
