"""torchao's quantizations by the names of its own configs, which transformers wants as objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftkit.errors import ResourceError, UsageError
from peftkit.plugins.quantizer import Conflict, Quantizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_EXAMPLE = "write quant_type: {Int8WeightOnlyConfig: {}}"


@dataclass(frozen=True)
class Config:
    """Choose one of torchao's configs; the other keys are transformers' `TorchAoConfig`'s own."""

    quant_type: Mapping[str, Any] = field(default_factory=lambda: {"Int8WeightOnlyConfig": {}})
    """A config of `torchao.quantization` and its options, `{Int8WeightOnlyConfig: {}}`; an option
    that takes an object is written alike, `{granularity: {PerGroup: {group_size: 32}}}`."""
    modules_to_not_convert: tuple[str, ...] = ()
    """Names of modules that stay as they are; the output head alone where there are none."""
    include_input_output_embeddings: bool = False
    """Quantize embeddings too."""
    untie_embedding_weights: bool = False
    """Give an embedding that is quantized weights of its own."""


class TorchAo(Quantizer):
    """Quantize by torchao, on a CPU too."""

    Config = Config
    keeps_modules = "modules_to_not_convert"

    @classmethod
    def conflicts(cls, options: Mapping[str, Any]) -> Sequence[Conflict]:
        """Name a choice that is none."""
        chosen = options.get("quant_type", {"": {}})
        if isinstance(chosen, Mapping) and len(chosen) != 1:
            return [("quant_type", "takes one of torchao's configs", _EXAMPLE)]
        return []

    @classmethod
    def trials(cls) -> Mapping[str, Mapping[str, Any]]:
        """Try int8 weights."""
        return {"torchao int8": {"quant_type": {"Int8WeightOnlyConfig": {}}}}

    @property
    def native(self) -> Any:
        """Return what `from_pretrained` takes.

        Raises:
            ResourceError: torchao is missing.
            UsageError: it has no such config, or not with such options.
        """
        if not isinstance(self.config, Config):
            return self.config  # of a checkpoint that is stored quantized
        from transformers import TorchAoConfig

        config = self.config
        return TorchAoConfig(
            _made(config.quant_type, "model.quantize.torchao.quant_type"),
            modules_to_not_convert=list(config.modules_to_not_convert) or None,
            include_input_output_embeddings=config.include_input_output_embeddings,
            untie_embedding_weights=config.untie_embedding_weights,
        )

    @property
    def bits(self) -> int | None:
        """Return what the config's name says of weights: `Int8DynamicActivationInt4Weight...`."""
        if not isinstance(self.config, Config):
            return None
        found = re.findall(r"(?:Int|Float)(\d)", next(iter(self.config.quant_type)))
        return int(found[-1]) if found else None

    def check(self, *, device: str) -> None:
        """Refuse what this machine cannot run, and a config that torchao does not have."""
        _torchao()
        super().check(device=device)

    def dequantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Put plain weights into the place of quantized ones, which transformers cannot."""
        import torch

        for module in model.modules():
            weight = module._parameters.get("weight")
            if weight is not None and type(weight).__module__.startswith("torchao."):
                plain = weight.dequantize()  # type: ignore[no-untyped-call, unused-ignore]
                module.weight = torch.nn.Parameter(plain, requires_grad=False)
        model.hf_quantizer.remove_quantization_config(model)
        return model

    def there_and_back(self, weight: torch.Tensor) -> torch.Tensor:
        """Quantize a matrix as loading does, and dequantize it."""
        import torch

        rows, columns = weight.shape
        layer = torch.nn.Linear(columns, rows, bias=False, dtype=weight.dtype)
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        _torchao().quantize_(layer, self.native.quant_type)
        back: torch.Tensor = layer.weight.dequantize()  # type: ignore[no-untyped-call, unused-ignore]
        return back


def _torchao() -> Any:
    try:
        import torchao.quantization as found
    except ImportError as error:
        raise ResourceError(
            f"model.quantize.torchao needs torchao: {error}",
            hint="pip install 'peftkit[torchao]'",
        ) from error
    return found


def _made(chosen: Mapping[str, Any], key: str) -> Any:
    """Make one of torchao's objects from its name and options."""
    torchao = _torchao()
    ((name, options),) = chosen.items()
    cls = getattr(torchao, str(name), None)
    if not isinstance(cls, type):
        known = [other for other in dir(torchao) if other.endswith("Config")]
        raise UsageError(
            f"{key}: torchao {_version()} has no {name!r}", hint=f"it has {', '.join(known)}"
        )
    given = {
        option: _made(value, f"{key}.{name}.{option}")
        if isinstance(value, Mapping) and len(value) == 1
        else value
        for option, value in (options or {}).items()
    }
    if "set_inductor_config" in getattr(cls, "__dataclass_fields__", {}):
        # torchao's settings for compiled models lower the precision of every float32 product.
        given.setdefault("set_inductor_config", False)
    try:
        return cls(**given)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"{key}.{name}: {error}", hint=f"see torchao {_version()}") from error


def _version() -> str:
    from importlib.metadata import version

    return version("torchao")
