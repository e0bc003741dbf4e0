"""int8 weights by torchao, multiplied in the model's own dtype; on a CPU as on a GPU.

transformers quantizes each weight as it is read. What stays is an `Int8Tensor`: a tensor that wraps
its numbers, their scales and their zero points.
"""

# ruff: noqa: ARG002, ARG003 - the contract gives more than is needed here
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import ResourceError, UsageError
from peftkit.plugins.quantizer import Conflict, Quantizer, Storage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Config:
    """Choose how finely linear layers are quantized, and which are not."""

    group_size: int | None = None
    """Columns that share a scale; null for one scale a row."""
    modules_to_not_convert: tuple[str, ...] = ()
    """Names of modules that stay as they are; the output head alone where there are none."""


class Int8(Quantizer):
    """Hold the linear layers of a base in int8, with a scale for each row or group of columns."""

    Config = Config
    keeps_modules = "modules_to_not_convert"
    bits = 8

    @classmethod
    def conflicts(cls, options: Mapping[str, Any]) -> Sequence[Conflict]:
        """Name a group that has no column."""
        size = options.get("group_size")
        if size is None or size > 0:
            return ()
        return [("group_size", "is no number of columns", "write 32 or more, or delete it")]

    @classmethod
    def proposals(cls, *, dtype: str) -> Sequence[Mapping[str, Any]]:
        """Propose one scale a row: next to nothing beside the numbers."""
        return [{}]

    @classmethod
    def trials(cls) -> Mapping[str, Mapping[str, Any]]:
        """Try both kinds of scales."""
        return {"torchao int8": {}, "torchao int8, by 32": {"group_size": 32}}

    @property
    def granularity(self) -> Any:
        """Return what shares a scale, as torchao says it."""
        from torchao.quantization import PerGroup, PerRow

        size = self.config.group_size
        return PerRow() if size is None else PerGroup(size)

    @property
    def native(self) -> Any:
        """Return what `from_pretrained` takes.

        Raises:
            ResourceError: torchao is missing.
        """
        try:
            from torchao.quantization import Int8WeightOnlyConfig
        except ImportError as error:
            raise ResourceError(
                f"model.quantize.torchao_int8 needs torchao: {error}",
                hint="pip install 'peftkit[torchao]'",
            ) from error
        from transformers import TorchAoConfig

        # torchao's settings for compiled models lower the precision of every float32 product.
        int8 = Int8WeightOnlyConfig(granularity=self.granularity, set_inductor_config=False)
        kept = list(self.config.modules_to_not_convert)
        return TorchAoConfig(int8, modules_to_not_convert=kept or None)

    @property
    def storage(self) -> Storage:
        """Return how weights are quantized without values, and how random ones are."""
        return Int8Storage(self)

    def dequantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Put plain weights into the place of quantized ones, which transformers cannot."""
        import torch

        for module in model.modules():
            weight = module._parameters.get("weight")
            if _is_int8(weight):
                module.weight = torch.nn.Parameter(weight.dequantize(), requires_grad=False)
        model.hf_quantizer.remove_quantization_config(model)
        return model

    def there_and_back(self, weight: torch.Tensor) -> torch.Tensor:
        """Quantize a matrix as loading does, and dequantize it."""
        return self.quantize(weight).dequantize()

    def quantize(self, weight: torch.Tensor) -> Any:
        """Return a matrix in int8.

        Raises:
            UsageError: its columns are no multiple of a group's.
        """
        from torchao.quantization import Int8Tensor

        size = self.config.group_size
        if size is not None and weight.shape[-1] % size:
            raise UsageError(
                f"model.quantize.torchao_int8.group_size {size} does not divide the"
                f" {weight.shape[-1]} columns of a weight",
                hint="write one that does, or delete it for one scale a row",
            )
        return Int8Tensor.from_hp(weight, granularity=self.granularity)


class Int8Storage(Storage):
    """Quantize as loading does; the planner looks into `Int8Tensor` by itself."""

    quantizer: Int8

    def convert(self, model: PreTrainedModel) -> None:
        """Quantize on meta each weight that transformers would quantize as it reads it."""
        import torch

        super().convert(model)
        for name, weight in list(model.named_parameters()):
            if model.hf_quantizer.param_needs_quantization(model, name):
                parent, _, own = name.rpartition(".")
                made = torch.nn.Parameter(self.quantizer.quantize(weight), requires_grad=False)
                setattr(model.get_submodule(parent), own, made)

    def draw(
        self, parameter: Any, module: torch.nn.Module, values: Callable[[], torch.Tensor]
    ) -> torch.Tensor | None:
        """Quantize drawn values where the weight on meta is quantized."""
        import torch

        if not _is_int8(parameter):
            return None
        return torch.nn.Parameter(self.quantizer.quantize(values()), requires_grad=False)


def _is_int8(weight: Any) -> bool:
    from torchao.quantization import Int8Tensor

    return isinstance(weight, Int8Tensor)
