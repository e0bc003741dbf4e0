"""Find a model's repeated layers, keep as few as stand for all of them, and mark where each begins.

A layer is repeated when its parameters, their dtypes, what is trained of it, its modules and their
settings equal another's. Nothing is assumed of an architecture: what is not repeated is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.memory.trace import Repeat

if TYPE_CHECKING:
    import torch

    from peftkit.memory.tracker import Tracker

_SHORTEST_STACK = 4
_LONGEST_PERIOD = 8
_OF_ONE_LAYER = frozenset({"layer_idx", "layer_id", "layer_index", "block_idx", "training"})
"""Attributes that number a layer without changing what it computes."""


@dataclass(frozen=True)
class Stack:
    """Describe a list of layers that run one after the other."""

    name: str
    """Dotted path in the model."""
    signatures: tuple[int, ...]
    """Layer -> a number that equals another's when the layers are alike."""


def find_stacks(model: torch.nn.Module) -> list[Stack]:
    """Find the outermost lists of at least four modules of one class."""
    from torch import nn

    found: list[Stack] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) < _SHORTEST_STACK:
            continue
        if any(name.startswith(f"{stack.name}.") for stack in found):
            continue
        if len({type(layer) for layer in module}) == 1 and any(True for _ in module.parameters()):
            types = _layer_types(model, len(module))
            keys = [(_signature(layer), kind) for layer, kind in zip(module, types, strict=True)]
            numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            found.append(Stack(name, tuple(numbers[key] for key in keys)))
    return found


def choose_layers(stack: Stack, *, times: int = 1) -> tuple[list[int], list[Repeat]]:
    """Choose the layers to run: ends, and one block in the middle of each repeated stretch.

    Args:
        times: how many of the middle blocks are run; more than 1 to check that one stands for all.

    Returns:
        the indices of the layers to keep, and which of them stand for more.
    """
    signatures = stack.signatures
    kept: list[int] = []
    repeats: list[Repeat] = []
    at = 0
    while at < len(signatures):
        period, count = _longest_repetition(signatures, at)
        if count < times + 3:
            kept.append(at)
            at += 1
            continue
        end = at + period * count
        middle = at + period
        kept += [*range(at, middle + times * period), *range(end - period, end)]
        # With several middle blocks run, the last of them stands for those left out.
        block = range(middle + (times - 1) * period, middle + times * period)
        repeats.append(Repeat(stack.name, tuple(block), count - 1 - times))
        at = end
    return kept, repeats


@contextmanager
def kept_layers(model: torch.nn.Module, stack: Stack, kept: Sequence[int]) -> Iterator[None]:
    """Take all other layers out of a model, and out of its configuration's list of their types.

    Those that stay count on from 0, as the layers of their cache do.
    """
    from torch import nn

    parent_name, _, attribute = stack.name.rpartition(".")
    parent = model.get_submodule(parent_name)
    layers: Any = getattr(parent, attribute)
    config: Any = getattr(parent, "config", None)
    types: Any = getattr(config, "layer_types", None)
    has_types = types is not None and len(types) == len(stack.signatures)
    setattr(parent, attribute, nn.ModuleList(layers[index] for index in kept))
    if has_types:
        config.layer_types = [types[index] for index in kept]
    places = [(place, m) for place, at in enumerate(kept) for m in layers[at].modules()]
    numbered = [(place, m, m.layer_idx) for place, m in places if hasattr(m, "layer_idx")]
    for place, module, _ in numbered:
        module.layer_idx = place
    try:
        yield
    finally:
        for _, module, own in numbered:
            module.layer_idx = own
        setattr(parent, attribute, layers)
        if has_types:
            config.layer_types = types


def mark_layers(
    model: torch.nn.Module, stack: Stack, kept: Sequence[int], tracker: Tracker
) -> list[Any]:
    """Make a tracker enter a new segment wherever a layer's forward or backward begins.

    Returns: the hooks' handles, to take them off again.
    """
    handles: list[Any] = []
    layers: Any = model.get_submodule(stack.name)
    for index, layer in zip(kept, layers, strict=True):
        place = (stack.name, index)

        def begin(_module: Any, _args: Any, place: tuple[str, int] = place) -> None:
            if tracker.phase == "forward":
                tracker.enter(tracker.phase, place)

        def end(_module: Any, _args: Any, output: Any, place: tuple[str, int] = place) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if tracker.phase == "forward" and getattr(hidden, "requires_grad", False):
                hidden.register_hook(lambda _: tracker.enter("backward", place))

        handles.append(layer.register_forward_pre_hook(begin))
        handles.append(layer.register_forward_hook(end))
    return handles


def _longest_repetition(signatures: Sequence[int], at: int) -> tuple[int, int]:
    """Return the period and the count of the longest repetition that starts here."""
    best = (1, 1)
    for period in range(1, _LONGEST_PERIOD + 1):
        block, count = signatures[at : at + period], 1
        while signatures[at + count * period : at + (count + 1) * period] == block:
            count += 1
        if count > 1 and period * count > best[0] * best[1]:
            best = (period, count)
    return best


def _layer_types(model: torch.nn.Module, num_layers: int) -> list[str | None]:
    """Return each layer's kind of attention, where the configuration lists them."""
    config: Any = getattr(model, "config", None)
    types: Any = config and getattr(config.get_text_config(), "layer_types", None)
    if types is None or len(types) != num_layers:
        return [None] * num_layers
    return list(types)


def _signature(layer: torch.nn.Module) -> tuple[Any, ...]:
    """Return everything about a layer that its memory could depend on."""
    parts: list[Any] = []
    for name, module in layer.named_modules():
        settings = tuple(
            (key, value)
            for key, value in sorted(vars(module).items())
            if isinstance(value, int | str | bool | None) and key not in _OF_ONE_LAYER
        )
        parts.append((name, type(module).__name__, settings))
    parts += [
        (name, tuple(p.shape), str(p.dtype), p.requires_grad)
        for name, p in layer.named_parameters()
    ]
    parts += [(name, tuple(b.shape), str(b.dtype)) for name, b in layer.named_buffers()]
    return tuple(parts)
