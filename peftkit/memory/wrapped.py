"""Tensors that stand for others, by torch's own protocol: DTensor, and many packages' packed weights.

Such a wrapper has a storage of the size that its shape suggests, and no byte of it exists: what
takes memory are the tensors inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@cache
def is_wrapper(kind: type) -> bool:
    """Tell a class whose tensors are taken apart and put together again by torch's protocol."""
    return hasattr(kind, "__tensor_flatten__") and hasattr(kind, "__tensor_unflatten__")


def parts_of(tensor: Any) -> Iterator[torch.Tensor]:
    """Give the tensors that a tensor's bytes lie in: itself, where it is no wrapper."""
    if not is_wrapper(type(tensor)):
        yield tensor
        return
    for part in _inside(tensor).values():
        yield from parts_of(part)


def remake(tensor: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Make a tensor by `make`; a wrapper around what that makes of each tensor inside."""
    if not is_wrapper(type(tensor)):
        return make(tensor)
    names, context = tensor.__tensor_flatten__()
    parts = {name: getattr(tensor, name) for name in names}
    parts |= {name: remake(part, make) for name, part in _inside(tensor).items()}
    shape, stride = tensor.shape, tensor.stride()
    wrapper: torch.Tensor = type(tensor).__tensor_unflatten__(parts, context, shape, stride)
    return wrapper


def _inside(wrapper: Any) -> dict[str, torch.Tensor]:
    """Return the tensors inside; a DTensor names its mesh among them."""
    import torch

    parts = {name: getattr(wrapper, name) for name in wrapper.__tensor_flatten__()[0]}
    return {name: part for name, part in parts.items() if isinstance(part, torch.Tensor)}
