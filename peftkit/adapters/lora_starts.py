"""Which starts of a LoRA leave the base's weights alone, and which take a part of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEEP_BASE = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Values of `init_lora_weights` after which the base is as it was.

Any other takes a part of each weight into the factors (pissa, olora, corda, lora_ga), or quantizes
what is left (loftq), so that base + adapter is right on the changed base only. Source: peft 0.21.2,
`tuners/lora/layer.py`.
"""


def moved_by(config: Mapping[str, Any]) -> str | None:
    """Return the option of an adapter's configuration that changes the base; None where none does.

    Args:
        config: as peft writes it; of any PEFT method.
    """
    if config.get("init_lora_weights", True) not in KEEP_BASE:
        return "init_lora_weights"
    # KaSA cuts the smallest singular components off the base.
    return "kasa_config" if config.get("kasa_config") else None
