"""The base with what peft itself says each adapter changes, combined: to compare a merge with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftkit.merging.combination import changes_tied
from peftkit.merging.inputs import Inputs
from peftkit.merging.meta_model import model_class
from peftkit.models.load_errors import load_explained
from peftkit.plugins import Merge
from peftkit.system.checkpoint_files import PEFT_PREFIX
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    import torch

    from peftkit.merging.adapter import OpenedAdapter

    State = dict[str, torch.Tensor]


def why_no_reference(
    combined: OpenedAdapter, opened: Sequence[OpenedAdapter], config: Mapping[str, Any]
) -> str | None:
    """Say why the combination cannot be put on the base as transformers loads it; None if it can.

    Args:
        config: the base's `config.json`.
    """
    if combined.replaced:
        return "an adapter brings weights that the base does not have"
    if any(changes_tied(adapter, config) for adapter in opened):
        return "an adapter changes a weight that the base ties to another"
    if any(change.is_stack for some in combined.changes.values() for change in some):
        return "an adapter changes stacks of experts"
    return None


def load_reference(
    inputs: Sequence[Inputs],
    opened: Sequence[OpenedAdapter],
    merge: Merge,
    config: Mapping[str, Any],
) -> Any:
    """Load the base in float64, add the combination of peft's own merges, return it in float32.

    Neither this package's formulas nor its readers take part; only `merge.combine` does.
    """
    import torch
    from transformers.utils import logging

    quiet_stack()
    logging.disable_progress_bar()
    cls = model_class(config, opened[0].config, inputs[0].base)
    with load_explained(str(inputs[0].base)):
        base = cls.from_pretrained(inputs[0].base, dtype=torch.float64)
    state = dict(base.named_parameters())
    merged = [_merge_by_peft(cls, one, merge) for one in inputs]
    with torch.no_grad():
        for name, parameter in state.items():
            owners = [i for i, adapter in enumerate(opened) if _target(adapter, name) is not None]
            if owners:
                weights = [merge.weights[i] for i in owners]
                parts = [merged[i] for i in owners]
                delta = _combined(name, parameter, parts, weights, merge, opened[owners[0]])
                parameter.add_(delta)
    return base.float().eval()


class _Merged:
    """Hold what peft made of the base with one adapter, and its LoRA layers."""

    def __init__(self, state: State, layers: dict[str, Any], factors: dict[str, Any]) -> None:
        self.state, self.layers, self.factors = state, layers, factors


def _merge_by_peft(cls: Any, inputs: Inputs, merge: Merge) -> _Merged:
    """Attach one adapter to the base and merge it, all in float64."""
    import torch
    from peft.tuners.lora import LoraLayer

    from peftkit.adapters.base import upstream_notices_ignored
    from peftkit.adapters.continued import load_adapter

    with load_explained(str(inputs.base)):
        model = cls.from_pretrained(inputs.base, dtype=torch.float64)
    attached = load_adapter(model, inputs.adapter or inputs.source, is_trainable=False)
    attached.to(torch.float64)
    layers = {
        name.removeprefix(PEFT_PREFIX): module
        for name, module in attached.named_modules()
        if merge.combines == "factors" and isinstance(module, LoraLayer)
    }
    factors = {name: _factors(layer) for name, layer in layers.items()}
    with upstream_notices_ignored():
        whole = attached.merge_and_unload()
    state = {name: p.detach() for name, p in whole.named_parameters()}
    return _Merged(state, layers, factors)


def _factors(layer: Any) -> tuple[Any, Any, float]:
    """Return the parameters of A and B, and the scale."""
    ((name, scale),) = layer.scaling.items()
    if name in layer.lora_embedding_A:
        return layer.lora_embedding_A[name], layer.lora_embedding_B[name], scale
    return layer.lora_A[name].weight, layer.lora_B[name].weight, scale


def _combined(  # noqa: PLR0913, PLR0917 - one parameter and all that bears on it
    name: str,
    parameter: torch.Tensor,
    parts: Sequence[_Merged],
    weights: Sequence[float],
    merge: Merge,
    owner: OpenedAdapter,
) -> torch.Tensor:
    """Return the combined change of one parameter."""
    import torch

    path = name.rpartition(".")[0]
    if name.endswith(".weight") and all(path in part.layers for part in parts):
        return _combined_by_factors(path, parts, weights, merge)
    deltas = [(part.state[name] - parameter).numpy() for part in parts]
    shape = (len(deltas[0]), -1)
    target = _target(owner, name) or name
    whole = merge.combine([delta.reshape(shape) for delta in deltas], weights, target)
    return torch.from_numpy(whole).reshape(parameter.shape)


def _combined_by_factors(
    path: str, parts: Sequence[_Merged], weights: Sequence[float], merge: Merge
) -> torch.Tensor:
    """Combine As and Bs, and let peft's layer multiply them."""
    import torch

    factors = [part.factors[path] for part in parts]
    layer = parts[0].layers[path]
    made = []
    for index, which in enumerate(("lora_A", "lora_B")):
        roots = [
            abs(weight * scale) ** 0.5 * (-1.0 if weight * scale < 0 and index == 0 else 1.0)
            for weight, (_, _, scale) in zip(weights, factors, strict=True)
        ]
        some = [factor[index].detach().numpy() for factor in factors]
        flat = [one.reshape(len(one), -1) for one in some]
        combined = merge.combine(flat, roots, f"{path}.{which}")
        made.append(torch.from_numpy(combined).reshape(some[0].shape))
    for parameter, value in zip(factors[0][:2], made, strict=True):
        parameter.data = value
    ((adapter, _),) = layer.scaling.items()
    layer.scaling[adapter] = 1.0
    delta: torch.Tensor = layer.get_delta_weight(adapter)
    return delta


def _target(adapter: OpenedAdapter, parameter: str) -> str | None:
    """Return what the checkpoint calls a parameter that an adapter changes; None if it does not."""
    return next(
        (
            name
            for name in (parameter, parameter.partition(".")[2])
            if name in adapter.changes or name in adapter.replaced
        ),
        next((name for name in adapter.targets if name.endswith(f".{parameter}")), None),
    )
