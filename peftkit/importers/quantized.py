"""Quantizations of other tools, by bitsandbytes."""

from __future__ import annotations

from typing import Any

from peftkit.plugins.imported import Draft

WHERE = "model.quantize.bitsandbytes"


def put_bits(draft: Draft, bits: Any, *, kind: str = "nf4", twice: bool = True) -> bool:
    """Hold the base in 4 or 8 bits; False where it is something else.

    Args:
        kind: of 4-bit weights, `nf4` or `fp4`.
        twice: whether their scales are quantized too.
    """
    if bits == 8:
        draft.put(WHERE, {"load_in_8bit": True})
    elif bits == 4:
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": kind}
        draft.put(WHERE, {**options, "bnb_4bit_use_double_quant": twice})
    return bits in (4, 8)
