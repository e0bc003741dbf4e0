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


def num_virtual_tokens(model: Any) -> int:
    """Return the positions that a soft prompt takes, 0 without one."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning:
        return 0
    return int(config.num_virtual_tokens or 0)


def embeddings_of(model: Any) -> dict[str, Any]:
    """Return a bare model's embedding and, where it has weights of its own, its head, by name."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_apart = head is not None and head.weight is not embedding.weight
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(module)]: module for module in (embedding, *([head] if is_apart else []))}


def head_modules(model: Any) -> list[str]:
    """Name what a model has beside its body and can be trained: a classifier's new modules."""
    return [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and next(module.parameters(), None) is not None
    ]


def trains_head(model: Any) -> bool:
    """Tell whether a classifier's head was trained; an adapter may keep the base's own."""
    from peft.utils.other import ModulesToSaveWrapper

    if not is_adapted(model):
        return True
    base = native_model(model)
    heads = [base.get_submodule(name) for name in head_modules(base)]
    return any(isinstance(part, ModulesToSaveWrapper) for head in heads for part in head.modules())
