"""A copy of the tiny model to damage, and the section that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftkit.models.base import load_base
from peftkit.plugins import CAUSAL_LM, ModelKind
from peftkit.recipe.schema import ModelSection


def section(folder: Path, **more: Any) -> ModelSection:
    """Return a model section of a folder, in float32 unless told otherwise."""
    return ModelSection(path=str(folder), **{"dtype": "float32", **more})


def edit(file: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def base_of(model: ModelSection, kind: ModelKind = CAUSAL_LM) -> Any:
    """Load the weights of a section."""
    return load_base(model, kind=kind)


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors of a folder."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
