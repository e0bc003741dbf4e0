"""Weights that lie in shards over a run's processes, as an engine cuts them, and made whole again.

Making a tensor whole is an exchange: all processes do it, in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.memory.cutting import settle_plugin
from peftkit.training.zero import gathered, is_partitioned

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Trainer


def is_sharded(model: nn.Module) -> bool:
    """Tell whether a model's weights lie in shards, be they gathered just now or not."""
    from torch.distributed.fsdp import FSDPModule

    is_cut = any(isinstance(module, FSDPModule) for module in model.modules())
    return is_cut or is_partitioned(model)


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor; all of one that is not cut."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, in every process."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: Any, *, is_kept: bool) -> dict[str, Tensor] | None:
    """Return what a model saves with every tensor whole; None where nothing of it is cut.

    Of an adapted model the frozen base is left out: nobody saves it, and it may be larger than
    what one host holds. What several names share stays shared.

    Args:
        is_kept: whether this process keeps what it gathers; the others only take part.
    """
    from torch.distributed.fsdp import FSDPModule

    if not is_sharded(model):
        return None
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # some stay gathered after a forward
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    prefix = model.base_model.prefix if hasattr(model, "peft_config") else None
    found: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if prefix is not None and name in frozen and prefix not in name:
            continue
        if id(tensor) not in made:
            with gathered(tensor) as one:
                all_of_it = whole(one.detach())
                # A copy: what was gathered is freed, or cut again.
                made[id(tensor)] = all_of_it.to("cpu", copy=True) if is_kept else one.new_empty(0)
                del all_of_it
        found[name] = made[id(tensor)]
    for target, source in getattr(model, "all_tied_weights_keys", {}).items():
        if target in found and source in found:
            found[source] = found[target]  # a method may have cut a second name apart
    return found


def uncut(model: Any) -> Any:
    """Return a model without weights, of the class that a sharded one had before it was cut.

    transformers tells by the class how the names of weights are written.
    """
    import torch
    from torch.distributed.fsdp import FSDPModule

    made_from: Any = next(one for one in type(model).__mro__ if not issubclass(one, FSDPModule))
    with torch.device("meta"):
        plain = made_from(model.config)
    if model.can_generate():
        plain.generation_config = model.generation_config
    return plain


def settle_shards(trainer: Trainer, key: str) -> None:
    """Say of a model what is cut together, and what is left whole in every process.

    Args:
        key: the recipe's, which asks for shards.

    Raises:
        UsageError: a weight that cannot be cut is trained.
    """
    plugin = trainer.accelerator.state.fsdp_plugin
    whole_ones = settle_plugin(plugin, trainer.model, key)
    for module in whole_ones:
        module.to(trainer.args.device)
    plugin.ignored_modules = whole_ones or None
