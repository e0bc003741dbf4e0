"""Classic fine-tuning: every parameter of the base is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback

    from peftkit.plugins import Decision


class Full:
    """Train every parameter of the base; the run writes a whole model."""

    Config: ClassVar[None] = None

    def __init__(self, config: Any = None) -> None:
        self.config = config

    @classmethod
    def conflicts(
        cls,
        options: Mapping[str, Any],  # noqa: ARG003 - the signature every adapter shares
        method: str,  # noqa: ARG003
        method_options: Mapping[str, Any],  # noqa: ARG003
    ) -> list[str]:
        """Say what in a recipe cannot work; a quantized base is seen by `attach`."""
        return []

    @classmethod
    def decide(
        cls,
        method: str,  # noqa: ARG003
        method_options: Mapping[str, Any],  # noqa: ARG003
    ) -> Sequence[Decision]:
        """Choose nothing: full fine-tuning depends on no key of the method."""
        return ()

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

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Return nothing: plain training needs no help."""
        return ()
