"""What FSDP2 cuts of a model together, and what it leaves whole in every process.

A run and its plan ask here, so that they cut the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


def settle_plugin(plugin: Any, model: Any, key: str) -> list[nn.Module]:
    """Tell accelerate's FSDP plugin what to cut together; return what each process keeps whole.

    Left to itself accelerate cuts the classes that a model names for placement on devices, which
    may hold its embedding, be absent, or be none.

    Args:
        key: the recipe's, which asks for shards.

    Raises:
        UsageError: a weight that cannot be cut is trained.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = block_classes(model)
    return shared_modules(model, key)


def block_classes(model: Any) -> list[str]:
    """Name the classes of a model's blocks: each is cut, and gathered, by itself."""
    from torch import nn

    embedding = model.get_input_embeddings()
    blocks = {
        type(block)
        for stack in model.modules() if isinstance(stack, nn.ModuleList)
        for block in stack if embedding not in set(block.modules())
    }  # fmt: skip
    stated = {
        type(module) for module in model.modules()
        if type(module).__name__ in (model._no_split_modules or ()) and type(module) in blocks
    }  # fmt: skip
    return sorted(one.__name__ for one in stated or blocks)


def shared_modules(model: Any, key: str) -> list[nn.Module]:
    """Return the modules that read a frozen weight of others, too: each process keeps it whole.

    FSDP2 cuts a shared weight only together with all modules that read it, and accelerate puts only
    embedding and head together.

    Raises:
        UsageError: such a weight is trained.
    """
    together = {model.get_input_embeddings(), model.get_output_embeddings()}
    readers: dict[nn.Parameter, list[tuple[str, nn.Module]]] = {}
    # With duplicates: trained rows of tied embeddings are one module under two others.
    for name, module in model.named_modules(remove_duplicate=False):
        for weight in module.parameters(recurse=False):
            readers.setdefault(weight, []).append((name, module))
    found: list[nn.Module] = []
    for weight, named in readers.items():
        modules = {module: None for _, module in named}
        is_in_two = weight.requires_grad and len(named) > len(modules)
        if not is_in_two and (len(modules) == 1 or modules.keys() <= together):
            continue
        if weight.requires_grad:
            names = ", ".join(name for name, _ in named)
            raise UsageError(
                f"{key}: {names} share a weight that is trained, and FSDP2 cannot cut it",
                hint=f"{key}=false, with which every process holds all of the model",
            )
        found += modules
    return found
