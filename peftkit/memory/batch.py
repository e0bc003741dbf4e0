"""The batches that a method's collator would make, in shapes only.

Imported once planning is sure: it subclasses torch.Tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peftkit.plugins import Method, Point


class AllOnes(torch.Tensor):
    """A mask that masks nothing and says so when asked, where a fake tensor could not.

    transformers drops such a mask outside of tracing, and takes fake tensors for tracing. What
    is asked of a mask's values is answered here, everything else is done with the fake mask.
    """

    fake: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> AllOnes:
        """Wrap a fake mask."""
        made: AllOnes = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=torch.device("cpu")
        )
        made.fake = inner
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer for the values, or do the same with the mask inside."""
        name = getattr(func, "__name__", "")
        if name == "all":
            return True
        if name == "sum" and not kwargs and len(args) == 1:
            return args[0].numel()
        result = func(*_unwrap(args), **_unwrap(kwargs or {}))
        if name in ("to", "cat", "bool") and isinstance(result, torch.Tensor):
            return cls(result)
        return result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # torch's stub has a disabled function
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do the same with the mask inside."""
        return func(*_unwrap(args), **_unwrap(kwargs or {}))


def make_batch(method: Method, point: Point, *, has_types: bool = False) -> dict[str, Any]:
    """Make the tensors of one micro-batch; call it inside fake mode.

    Args:
        method: says which whole numbers its collator gives; masks are added here.
        has_types: whether tokens say which of two texts they are of.
    """
    shapes = method.columns(point)
    if point.layout in ("packed", "flat", "rows"):
        return _flattened(shapes, point)
    batch: dict[str, Any] = {name: _integers(*shape) for name, shape in shapes.items()}
    if "input_ids" in shapes:
        shape = shapes["input_ids"]
        batch["attention_mask"] = _mask(shape, point.layout) if method.pads else _no_mask(shape)
        if has_types:
            batch["token_type_ids"] = _integers(*shape)
    if "decoder_input_ids" in shapes:
        batch["decoder_attention_mask"] = _no_mask(shapes["decoder_input_ids"])
    return batch


def _mask(shape: tuple[int, ...], layout: str) -> torch.Tensor:
    ones = _integers(*shape)
    return ones if layout == "padded" else AllOnes(ones)


def _no_mask(shape: tuple[int, ...]) -> AllOnes:
    """Make a mask of no bytes that masks nothing, for a batch whose collator makes none.

    Without a mask and a cache, transformers looks into real tensors for rows packed into one, and
    takes fake ones for such. This one it is told to leave out.
    """
    return AllOnes(_integers(1, 1).expand(shape))


def _flattened(shapes: Mapping[str, tuple[int, ...]], point: Point) -> dict[str, Any]:
    """Make trl's padding-free batch: one row of all tokens, positions that start anew."""
    batch: dict[str, Any] = {
        name: _integers(1, math.prod(shape)) if len(shape) > 1 else _integers(*shape)
        for name, shape in shapes.items()
    }
    num = math.prod(shapes["input_ids"])
    batch["position_ids"] = _integers(1, num)
    batch["seq_idx"] = torch.empty((1, num), dtype=torch.int32)
    if point.layout == "rows":
        batch["row_lengths"] = [point.length] * point.micro_batch
    if point.layout == "flat":
        batch["attention_mask"] = AllOnes(_integers(1, num))
    return batch


def _integers(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64)


def _unwrap(values: Any) -> Any:
    if isinstance(values, AllOnes):
        return values.fake
    if isinstance(values, list | tuple):
        return type(values)(_unwrap(value) for value in values)
    if isinstance(values, dict):
        return {key: _unwrap(value) for key, value in values.items()}
    return values
