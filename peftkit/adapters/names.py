"""Names of a model's parts as recipes and PEFT's configs write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def recipe_key(config: Any, key: str = "") -> str:
    """Return the dotted recipe key of a native key, e.g. `adapter.lora.r`."""
    name = f"adapter.{config.peft_type.value.lower()}"
    return f"{name}.{key}" if key else name


def is_named(entry: str, name: str) -> bool:
    """Tell whether an entry of a list of targets names a module, as PEFT reads it."""
    return name == entry or name.endswith(f".{entry}")


def endings(names: Iterable[str], num_parts: int = 1) -> list[str]:
    """Return the distinct last parts of dotted names, in order of appearance."""
    return list(dict.fromkeys(".".join(name.split(".")[-num_parts:]) for name in names))


def linear_modules(model: Any) -> list[str]:
    """List a model's linear modules, the output head excepted."""
    head, no_linear = model.get_output_embeddings(), set(only_named_linear(model))
    return [
        name
        for name, module in model.named_modules()
        if _is_linear(module) and module is not head and name not in no_linear
    ]


def only_named_linear(model: Any) -> list[str]:
    """List modules that inherit from a linear layer and compute something else.

    Routers that return which expert they chose and products of groups are such, in some families.
    PEFT's `all-linear` takes them, and the first forward breaks.
    """
    return [
        name
        for name, module in model.named_modules()
        if type(module).__module__.startswith("transformers.models.")
        and _is_linear(module)
        and not _computes_linear(module)
    ]


def _is_linear(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _computes_linear(module: Any) -> bool:
    """Call a family's own kind of linear layer, and see whether one tensor of its size comes."""
    import torch

    weight = module.weight
    given = torch.zeros(1, 2, module.in_features, dtype=weight.dtype, device=weight.device)
    try:
        with torch.no_grad():
            made = module(given)
    except (RuntimeError, ValueError, TypeError):
        return False
    return isinstance(made, torch.Tensor) and made.shape == (1, 2, module.out_features)
