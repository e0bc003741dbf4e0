"""Parameter-efficient fine-tuning that says what will happen and proves what it did.

The command line is `peftkit`; from Python, each verb is one function of the module that
bears its name: `peftkit.run.run`, `peftkit.evaluate.evaluate_run`, and so on.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# trl's trainers and huggingface_hub report usage unless told not to, and read this at import.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

__version__ = "0.1.0"

_HOMES = {
    "PeftkitError": "peftkit.errors",
    "Recipe": "peftkit.recipe.schema",
    "RecipeError": "peftkit.errors",
    "RunDir": "peftkit.rundir.paths",
    "load_recipe": "peftkit.recipe.load",
}

__all__ = ["PeftkitError", "Recipe", "RecipeError", "RunDir", "__version__", "load_recipe"]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'peftkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
