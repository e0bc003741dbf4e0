"""What the JSON files of a run hold: the type of every value that is read from them.

A seal tells a changed file from the one that was written; it says nothing of a file from elsewhere,
which may have none. Keys may be missing: a run writes what it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from peftkit.errors import ArtefactError
from peftkit.system.checkpoint_files import read_json

Shape: TypeAlias = "type | tuple[type, ...] | list[Shape] | dict[str, Shape]"
"""A type or several; a list of one shape; a mapping by key, where `*` stands for any."""

_NONE = type(None)
_NUMBER = (int, float)
_NUMBERS: Shape = {"*": (int, float, _NONE)}
_SCORES: dict[str, Shape] = {
    "split": str, "num_rows": int, "headline": str, "base": _NUMBERS, "tuned": _NUMBERS,
    "baselines": {"*": _NUMBERS}, "intervals": (dict, _NONE), "num_unfinished": {"*": int},
    "num_cut": int, "generation": dict, "seconds": _NUMBER, "notes": [str],
    "by_label": {"*": dict}, "samples_sha256": str,
}  # fmt: skip
SHAPES: Mapping[str, dict[str, Shape]] = {
    "status.json": {
        "identity": (str, _NONE), "state": str, "exit_code": (int, _NONE), "step": int,
        "total_steps": (int, _NONE), "message": str,
    },
    "measured.json": {
        "train_seconds": _NUMBER, "num_steps": int, "num_tokens": int, "tokens_per_second": _NUMBER,
        "peak_bytes": int, "peak_reserved_bytes": int, "peak_kind": str,
        "final_loss": (int, float, _NONE), "device": str, "num_trainable": int,
        "num_parameters": int, "kept_step": (int, _NONE), "best_metric": (int, float, _NONE),
        "trained_sha256": str, "metrics_sha256": str,
    },
    "data.json": {
        "fingerprint": str, "splits": {"*": dict}, "mask_samples": {"*": [dict]},
        "split_fingerprints": {"*": str}, "system": str,
    },
    "versions.json": {
        "python": str, "platform": str, "packages": {"*": str}, "command": (str, list),
        "model": (dict, _NONE), "earlier": [dict],
    },
    "drift.json": {"identity": str, "also": [str], "calls": [{"step": int, "changed": [str]}]},
    "base.json": {"name": str, "sha256": [str], "revision": (str, _NONE), "others": [dict]},
}  # fmt: skip
"""File's name -> its keys; `scores-SPLIT.json` is as `scores.json`."""


def read_record(file: Path) -> dict[str, Any]:
    """Read one of the files that a run writes.

    Raises:
        ArtefactError: it is no JSON, not what was written, or holds a value of another type.
    """
    content = read_json(file)
    is_scores = file.name.startswith("scores")
    shape = _SCORES if is_scores else SHAPES.get(file.name, {})
    wrong = _find_wrong(content, shape, "")
    if wrong is not None:
        raise ArtefactError(
            f"{file}: {wrong}, which no run writes", hint="bring the file back, or delete it"
        )
    return content


def _find_wrong(value: Any, shape: Shape, key: str) -> str | None:
    """Say which value is of another type than its shape; None where all fit."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{key} is a {type(value).__name__}"
        pairs = ((name, shape.get(name, shape.get("*"))) for name in value)
        found = (
            _find_wrong(value[name], inner, f"{key}.{name}".removeprefix("."))
            for name, inner in pairs
            if inner is not None
        )
        return next(filter(None, found), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{key} is a {type(value).__name__}"
        return next(filter(None, (_find_wrong(one, shape[0], key) for one in value)), None)
    is_bool = isinstance(value, bool)  # which Python takes for a number
    return None if isinstance(value, shape) and not is_bool else f"{key} is {value!r:.60}"
