"""What lies beneath an adapter: the transformers model, and what its forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any


def is_adapted(model: Any) -> bool:
    """Tell a model with an adapter from a bare one, which peft may have left its configs on."""
    return hasattr(model, "get_base_model")


def native_model(model: Any) -> Any:
    """Return the transformers model that an adapter is around; a bare one as it is."""
    return model.get_base_model() if is_adapted(model) else model


def accepted_inputs(model: Any) -> Collection[str]:
    """Name what the forward of a model takes, inside any adapter."""
    return inspect.signature(native_model(model).forward).parameters.keys()
