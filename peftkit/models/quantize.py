"""Quantized bases: what this machine cannot run, and what keeps a 4-bit base trainable on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def check_quantization(config: PretrainedConfig, quantization_config: Any, *, device: str) -> None:
    """Refuse a quantization that this machine cannot run, before weights are read.

    Nothing else prepares the base: PEFT freezes it, trl lets gradients into checkpointed layers,
    and the float32 copies of norms and head that `prepare_model_for_kbit_training` once made are
    no longer part of trl's path (1.16 does not call it).

    Raises:
        ResourceError: a package is missing, or the device cannot run this quantization.
        UsageError: the config asks for no quantization at all.
    """
    from transformers import BitsAndBytesConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    is_bitsandbytes = isinstance(quantization_config, BitsAndBytesConfig)
    if is_bitsandbytes and not (
        quantization_config.load_in_4bit or quantization_config.load_in_8bit
    ):
        raise UsageError(
            "model.quantize.bitsandbytes asks for neither 4 nor 8 bits",
            hint="add load_in_4bit: true, or load_in_8bit: true",
        )
    if getattr(config, "quantization_config", None) is None:
        try:
            quantizer = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False)
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


def keep_stored_layout(base: PreTrainedModel) -> None:
    """Hold 4-bit weights on the CPU in the layout they are stored in, which has gradients.

    Where the processor has AVX512-BF16, bitsandbytes repacks a weight at its first forward in
    evaluation mode, and from then on multiplies by it with an operator that has no backward:
    training after any evaluation would go on with gradients cut (0.50.2,
    `autograd.matmul_4bit`). The repacking also wants rows in multiples of 32 and columns in whole
    blocks, and its outputs differ from those of training by up to 4e-2. Delete this when
    `matmul_4bit` unpacks.
    """
    from bitsandbytes.nn import Linear4bit

    for module in base.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
