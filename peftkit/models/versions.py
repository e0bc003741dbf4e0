"""Record what a run ran on: Python, the stack, the device, the base model's commit."""

from __future__ import annotations

import platform
import shlex
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe

STACK = (
    "peftkit",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "bitsandbytes",
)


def describe_versions(recipe: Recipe, machine: Machine, *, out: Path) -> dict[str, Any]:
    """Return the content of versions.json."""
    from peftkit.models.load import resolve

    revision = resolve(recipe.model).revision if recipe.model.path is not None else None
    command = ["peftkit", "run", str(recipe.file), *recipe.overrides, "--out", str(out)]
    return {
        "python": platform.python_version(),
        "packages": stack_versions(),
        "device": machine.name,
        "model": {"path": recipe.model.path, "revision": revision},
        "platform": platform.platform(),
        "command": shlex.join(command),
    }


def stack_versions() -> dict[str, str]:
    """Return the installed version of every package of the stack that is there."""
    return {name: number for name in STACK if (number := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
