"""Give the base back that an adapted model was made of, where the adapter left it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from peftkit.adapters.lora_starts import moved_by

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def keeps_base(model: PreTrainedModel | PeftModel) -> bool:
    """Tell whether switching the adapter off gives the base model back, bit for bit.

    Full fine-tuning overwrites the base. So do a trained bias and a LoRA that moves part of the
    weight into itself.
    """
    configs = getattr(model, "peft_config", None)
    if configs is None:
        return False
    return all(
        moved_by(vars(config)) is None and getattr(config, "bias", "none") == "none"
        for config in configs.values()
    )


@contextmanager
def adapter_switched_off(model: PeftModel) -> Iterator[PreTrainedModel]:
    """Give the base model inside an adapted one, without the adapter."""
    with model.disable_adapter():
        yield model.get_base_model()
