"""Give the base back that an adapted model was made of, where the adapter left it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def keeps_base(model: PreTrainedModel | PeftModel) -> bool:
    """Tell whether switching the adapter off gives the base model back, bit for bit.

    Full fine-tuning overwrites the base. So do a trained bias and the LoRA initialisations that
    move part of the weight into the adapter (PiSSA, OLoRA, CorDA, LoftQ).
    """
    configs = getattr(model, "peft_config", None)
    if configs is None:
        return False
    for config in configs.values():
        start = getattr(config, "init_lora_weights", True)
        # "eva" and the random starts leave the weight alone
        if not isinstance(start, bool) and start not in ("gaussian", "orthogonal", "eva"):
            return False
        if getattr(config, "bias", "none") != "none":
            return False
    return True


@contextmanager
def adapter_switched_off(model: PeftModel) -> Iterator[PreTrainedModel]:
    """Give the base model inside an adapted one, without the adapter."""
    with model.disable_adapter():
        yield model.get_base_model()
