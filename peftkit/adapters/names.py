"""Names of a model's parts as recipes and PEFT's configs write them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

_READ = re.compile(r"self\.(\w+)\.weight\s*(?:,|@)")
"""A weight that is handed on, not one that is asked for its dtype."""


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
    head = model.get_output_embeddings()
    left_out = {*only_named_linear(model), *read_past(model)}
    return [
        name
        for name, module in model.named_modules()
        if _is_linear(module) and module is not head and name not in left_out
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


def read_past(model: Any) -> list[str]:
    """List linear modules of state-space mixers whose weights the mixer's own code reads.

    Mamba's scans, and its kernels where they are installed, take `self.dt_proj.weight` and the like
    past the module, and so past an adapter on it, which would stay at zero and count as trained.
    """
    found = []
    for name, module in model.named_modules():
        if "A_log" in module._parameters:
            read = set(_READ.findall(inspect.getsource(type(module))))
            found += [
                f"{name}.{child}"
                for child, part in module.named_children()
                if child in read and _is_linear(part)
            ]
    return found


def beside_text(model: Any) -> list[str]:
    """List the parts of a model of several modalities that texts do not pass through."""
    text = model.config.get_text_config()
    if text is model.config or model.config.is_encoder_decoder:
        return []
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    path = next((name for name, part in model.named_modules() if part is decoder), "")
    inside = path.split(".")
    found: dict[str, None] = {}
    for name, module in model.named_modules():
        parts = name.split(".")
        if path and _is_linear(module) and module is not head and parts[: len(inside)] != inside:
            shared = next(i for i, part in enumerate(parts) if inside[i : i + 1] != [part])
            found[".".join(parts[: shared + 1])] = None
    return list(found)


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
