"""Classic fine-tuning: every parameter of the base is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peftkit.errors import UsageError
from peftkit.plugins import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Full(Adapter):
    """Train every parameter of the base; the run writes a whole model."""

    Config: ClassVar[None] = None

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        """Make every parameter trainable.

        Raises:
            UsageError: the base is quantized, so its weights cannot take updates.
        """
        if getattr(model, "hf_quantizer", None) is not None:
            raise UsageError(
                "adapter: full cannot train a quantized base",
                hint="remove model.quantize, or train an adapter: `adapter: {lora: {r: 16}}`",
            )
        model.requires_grad_(True)
        return model
