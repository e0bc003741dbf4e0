"""Weights that are numbers: what holds NaN or infinity is no base, and nothing trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST_NAMED = 3


def find_not_finite(tensors: Iterable[tuple[str, Any]]) -> list[str]:
    """Name the tensors that hold NaN or infinity.

    Those on no device, packed by a quantization, or of 8 bits are not looked into.
    """
    import torch

    plain = (torch.Tensor, torch.nn.Parameter)
    return [
        name
        for name, tensor in tensors
        if type(tensor) in plain
        and tensor.is_floating_point()
        and tensor.element_size() > 1
        and not tensor.is_meta
        and not _is_finite(tensor.detach())
    ]


def _is_finite(tensor: Tensor) -> bool:
    """Tell by one sum, which holds no second copy; only one that overflows takes a closer look."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def check_base_finite(model: nn.Module, where: str) -> None:
    """Refuse a model that was loaded with weights that are no numbers.

    Args:
        where: it was loaded from.

    Raises:
        ArtefactError: names the weights.
    """
    named = list(model.named_parameters())
    wrong = find_not_finite(named)
    if wrong:
        raise ArtefactError(
            f"{where}: {describe(wrong, len(named))} hold NaN or infinity, so that nothing it"
            " computes is a number",
            hint="copy or download it again, or name another model",
        )


def describe(names: list[str], num_tensors: int) -> str:
    """Write out how many tensors are meant, and the first of them."""
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return f"{len(names)} of {num_tensors} tensors ({', '.join(names[:_MOST_NAMED])}{more})"
