"""A quantizer as another package would bring it: whole, in one file, with torch alone.

Every linear of the body is held as one int8 a weight and one float scale a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.plugins.quantizer import Conflict, Quantizer, Storage


@dataclass(frozen=True)
class RowsInt8Config:
    """Choose what is quantized."""

    largest: int = 127
    """The largest number that a weight is stored as."""
    left_out: tuple[str, ...] = ("lm_head",)
    """Endings of the names of modules that stay as they are."""


class RowsInt8(Quantizer):
    """Hold linears in 8 bits, a scale a row, by plain torch."""

    Config = RowsInt8Config
    keeps_modules = "left_out"
    native = None
    bits = 8

    @classmethod
    def conflicts(cls, options: Mapping[str, Any]) -> Sequence[Conflict]:
        """Refuse numbers that int8 does not have."""
        if options.get("largest", 127) > 127:
            return [("largest", "is more than an int8 holds", "write at most 127")]
        return ()

    @property
    def storage(self) -> Storage:
        """Return the plain one: all that is packed is registered with its module."""
        return Storage(self)

    def prepare(self, model: Any) -> None:
        """Replace every linear by one that holds int8."""
        import torch

        for name, module in list(model.named_modules()):
            if type(module) is torch.nn.Linear and not name.endswith(self.config.left_out):
                parent, _, own = name.rpartition(".")
                made = _linear_class()(module, self.config.largest)
                setattr(model.get_submodule(parent), own, made)

    def dequantize(self, model: Any) -> Any:
        """Replace them by plain linears again."""
        import torch

        for name, module in list(model.named_modules()):
            if type(module) is _linear_class():
                plain = torch.nn.Linear(module.in_features, module.out_features, bias=False)
                plain.weight.data = module.whole()
                parent, _, own = name.rpartition(".")
                setattr(model.get_submodule(parent), own, plain)
        return model

    def there_and_back(self, weight: Any) -> Any:
        """Round a matrix as `prepare` does."""
        packed, scales = _pack(weight, self.config.largest)
        return packed * scales


def _pack(weight: Any, largest: int) -> tuple[Any, Any]:
    import torch

    scales = weight.abs().amax(dim=1, keepdim=True) / largest
    return (weight / scales).round().to(torch.int8), scales


_made: list[type] = []


def _linear_class() -> type:
    """Make the class once torch is wanted."""
    import torch

    if not _made:

        class RowsInt8Linear(torch.nn.Linear):
            """Multiply by int8 rows and their scales."""

            def __init__(self, plain: torch.nn.Linear, largest: int) -> None:
                torch.nn.Module.__init__(self)
                self.in_features, self.out_features = plain.in_features, plain.out_features
                packed, scales = _pack(plain.weight.data, largest)
                self.weight = torch.nn.Parameter(packed, requires_grad=False)
                self.register_buffer("scales", scales)
                self.bias = plain.bias

            def whole(self) -> torch.Tensor:
                return self.weight * self.scales

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.nn.functional.linear(x, self.whole(), self.bias)

        _made.append(RowsInt8Linear)
    return _made[0]
