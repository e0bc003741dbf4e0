"""LoRA layers that compute in one step: asked of PEFT before it attaches them, tied afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.plugins import find, plugin_names
from peftkit.plugins.native import is_adapted

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel


def ask_for_fused(config: LoraConfig, model: PreTrainedModel) -> None:
    """Let PEFT make such layers over every linear layer of a base that they serve."""
    from peftkit.kernels.fused_lora import register

    packed: dict[type, type] = {}
    if getattr(model, "hf_quantizer", None) is not None:
        for name in plugin_names("quantizers"):
            packed.update(find("quantizers", name).lora_layers())
    register(config, model, packed)


def tie(attached: Any) -> None:
    """Let those of them that read the same input share what they compute of it."""
    from peftkit.kernels.fused_lora import tie_siblings

    tie_siblings(attached)


def fused_layers(model: Any) -> tuple[int, int]:
    """Count an adapted model's LoRA layers that are such ones, and all of its linear ones."""
    if not is_adapted(model):
        return 0, 0
    from peftkit.kernels.fused_lora import fused_layers as counted

    return counted(model)
