"""The small base models and the sample data that make everything work offline."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from peftkit.errors import UsageError

PREFIX = "embedded:"
"""What a recipe's `model.path` begins with to mean a model of this folder."""


def names() -> list[str]:
    """List the embedded models."""
    return sorted(folder.parent.name for folder in _root().glob("*/config.json"))


def dataset_names() -> list[str]:
    """List the embedded sample data."""
    return sorted(file.parent.name for file in _root().glob("*/train.jsonl"))


def model_path(name: str) -> Path:
    """Give the folder of an embedded model, which `from_pretrained` takes.

    Args:
        name: with or without `embedded:`.
    Raises: UsageError when there is no such model.
    """
    bare = name.removeprefix(PREFIX)
    if bare not in names():
        raise UsageError(f"no embedded model is called {bare!r}", hint=f"use one of {names()}")
    return _root() / bare


def dataset_path(name: str) -> Path:
    """Give the folder of embedded sample data, one `SPLIT.jsonl` per split.

    Raises: UsageError when there is no such data.
    """
    if name not in dataset_names():
        known = dataset_names()
        raise UsageError(f"no embedded data is called {name!r}", hint=f"use one of {known}")
    return _root() / name


def chat_templates_folder() -> Path:
    """Give the folder of the chat templates that a recipe gives by name."""
    return _root() / "chat_templates"


def _root() -> Path:
    return Path(str(files(__name__)))
