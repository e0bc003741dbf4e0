"""What a checkpoint that is stored quantized was quantized with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftkit.plugins import Quantizer, find, plugin_names


def stored_quantizer(model_config: Mapping[str, Any]) -> Quantizer | None:
    """Return the quantizer of a checkpoint that is stored quantized; None where there is none.

    Args:
        model_config: its `config.json`.
    """
    stored = model_config.get("quantization_config")
    name = stored.get("quant_method") if isinstance(stored, Mapping) else None
    if name not in plugin_names("quantizers"):
        return None
    found: Quantizer = find("quantizers", str(name)).of_checkpoint(stored)
    return found
