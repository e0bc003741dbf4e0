"""What the house asks of a quantization, each with a default: one class, and one for the planner.

A `Quantizer` is a plugin of the group `quantizers`, constructed with its `Config` as any other.
`Storage` is what the planner asks of it; without one, memory and time are *unknown*, never guessed.
"""

# ruff: noqa: ARG002, ARG003 - a default needs nothing of what it is given
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import ResourceError, UsageError
from peftkit.plugins.machine import Chosen
from peftkit.plugins.parts import Plugin

if TYPE_CHECKING:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import PreTrainedModel

Conflict = tuple[str, str, str | None]
"""An option, or nothing for all of them; what is wrong; what to try."""


class Quantizer(Plugin):
    """Hold a base's weights in fewer bits; a subclass names its config and says what is its own."""

    keeps_modules: ClassVar[str | None] = None
    """The option that names modules which stay as they are."""

    @property
    def after_loading(self) -> str:
        """Return lines of Python for a model card, each with its end.

        They make a base that plain transformers loaded so, named `base`, compute as in training.
        """
        return ""

    # What is read off a recipe's options, before anything is built or imported.

    @classmethod
    def decide(
        cls,
        options: Mapping[str, Any],
        *,
        dtype: str,
        kept_modules: Sequence[str],
    ) -> Sequence[Chosen]:
        """Choose native options; what the recipe states stays.

        Args:
            dtype: of the model; `auto` where it is not known yet.
            kept_modules: new modules, which are trained whole and must stay as they are.
        """
        if cls.keeps_modules is None or not kept_modules:
            return ()
        reason = "a new head is trained whole, and quantized weights cannot be"
        return (Chosen(cls.keeps_modules, list(kept_modules), reason),)

    @classmethod
    def conflicts(cls, options: Mapping[str, Any]) -> Sequence[Conflict]:
        """Name options that cannot both be meant, as they stand in the recipe."""
        return ()

    @classmethod
    def compute_dtype(cls, options: Mapping[str, Any], *, dtype: str) -> str:
        """Return the dtype that products are computed in where autocast says nothing.

        Args:
            options: of the recipe, decided ones included.
            dtype: of the model.
        """
        return dtype

    @classmethod
    def proposals(cls, *, dtype: str) -> Sequence[Mapping[str, Any]]:
        """Return the options that `fit` may propose for a base that is not quantized."""
        return ()

    @classmethod
    def trials(cls) -> Mapping[str, Mapping[str, Any]]:
        """Return what `doctor` tries: a variant's name (empty for the only one) -> its options."""
        return {"": {}}

    @classmethod
    def lora_layers(cls) -> Mapping[type, type]:
        """Return the linear layers that it packs -> PEFT's LoRA layer over each, where installed.

        Their adapter's part can be computed in one step; a layer that is not named is PEFT's own.
        """
        return {}

    # What is asked once it is constructed.

    @classmethod
    def of_checkpoint(cls, stored: Mapping[str, Any]) -> Quantizer:
        """Construct what a checkpoint was quantized with, from its `quantization_config`."""
        from transformers.quantizers.auto import AutoQuantizationConfig

        return cls(AutoQuantizationConfig.from_dict(dict(stored)))

    @property
    def native(self) -> Any | None:
        """Return the config that `from_pretrained` takes; None where `prepare` quantizes."""
        return self.config

    @property
    def bits(self) -> int | None:
        """Return the bits that a weight takes at least, its scales apart; None: not known."""
        return None

    @property
    def storage(self) -> Storage | None:
        """Return what the planner works with; None where nobody can say what a step takes."""
        return None

    def check(self, *, device: str) -> None:
        """Refuse what this machine cannot run, before a weight is read.

        Raises:
            ResourceError: a package is missing, or the device cannot run this quantization.
        """
        if self.native is None:
            return
        from transformers.quantizers.auto import AutoHfQuantizer

        try:
            quantizer = AutoHfQuantizer.from_config(self.native, pre_quantized=False)
            quantizer.validate_environment(device_map={"": device}, weights_only=True)
        except (ImportError, RuntimeError) as error:
            raise ResourceError(
                f"model.quantize: {str(error).splitlines()[0]}", hint="install the package it names"
            ) from error
        except ValueError as error:
            raise ResourceError(
                f"model.quantize cannot run on {device}: {str(error).splitlines()[0]}",
                hint="another quantization, or another device",
            ) from error

    def prepare(self, model: PreTrainedModel) -> None:
        """Make a loaded base ready to be trained on, in place; it may be on meta.

        Without a `native` config, this is what quantizes.
        """

    def dequantize(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a quantized base as the plain one that it stands for; a merge adds to it.

        Raises:
            ValueError: or another error of the stack: it cannot be undone.
        """
        plain: PreTrainedModel = model.dequantize()
        return plain

    def num_weights(self, parameter: torch.Tensor) -> int:
        """Return the numbers that a parameter stands for, where several share an element."""
        return parameter.numel()

    def there_and_back(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Quantize a float32 matrix and undo it; None where that cannot be done for one alone."""
        return None

    def replicated(self, computed: str | None) -> str | None:
        """Say why every device holds the whole base under FSDP2; None where it is cut.

        Args:
            computed: the dtype that gathered weights are cast to; None for none.

        Raises:
            UsageError: shards would lose what the weights mean.
        """
        raise UsageError(
            "FSDP2 cannot shard this quantized base: accelerate knows nothing of its weights",
            hint="DDP: delete fsdp",
        )


@dataclass(frozen=True)
class Operator:
    """Say what one of a quantization's operators does that nobody sees from outside."""

    workspace: Callable[..., int]
    """From its arguments to the bytes that it allocates and frees within itself."""
    flops: Callable[..., int]
    """From its arguments, and `out_val`, to its floating-point operations."""


class Storage:
    """Say how weights are packed, so that a step can be planned without any; nothing is, here."""

    operators: ClassVar[Mapping[str, Operator]] = {}
    """`namespace::name` of operators that exist once the quantization's package is imported."""

    def __init__(self, quantizer: Quantizer | None = None) -> None:
        self.quantizer = quantizer

    def convert(self, model: PreTrainedModel) -> None:
        """Swap the modules of a model on meta for quantized ones, as loading does; in place.

        Where loading quantizes weight by weight instead, a subclass does so here too.
        """
        if self.quantizer is None:
            return
        if self.quantizer.native is not None:
            from transformers.quantizers.auto import AutoHfQuantizer

            native = copy.deepcopy(self.quantizer.native)
            swapper = AutoHfQuantizer.from_config(native, pre_quantized=False)
            swapper.preprocess_model(model=model, device_map={"": "cpu"})
            model.hf_quantizer = swapper
            swapper.postprocess_model(model=model)
        self.quantizer.prepare(model)

    def pack(self, module: torch.nn.Module, mode: FakeTensorMode) -> list[torch.Tensor]:
        """Give a quantized module on meta its packed storage, as fake tensors; return them.

        A weight that wraps tensors, by torch's `__tensor_flatten__`, needs none of it: the planner
        looks inside.
        """
        return []

    def side_tensors(self, module: torch.nn.Module) -> Iterator[torch.Tensor]:
        """Give what a module holds beside its registered tensors: scales, codes, offsets."""
        yield from ()

    def is_packed(self, module: torch.nn.Module) -> bool:
        """Tell whether a module's weight means nothing without tensors beside it."""
        return False

    def rejoin(self, module: torch.nn.Module) -> None:
        """Give a packed weight that FSDP2 has gathered the tensors beside it again."""

    def draw(
        self, parameter: torch.Tensor, module: torch.nn.Module, values: Callable[[], torch.Tensor]
    ) -> torch.Tensor | None:
        """Quantize values for a parameter on meta; None for one that is not quantized.

        Args:
            values: draws them, of its shape and dtype, on the device that they stay on.
        """
        return None


PLAIN = Storage()
"""Of a base that is not quantized."""
