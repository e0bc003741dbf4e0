"""A checkpoint that is stored quantized names what can undo it."""

from __future__ import annotations

from peftkit.models.stored_quantization import stored_quantizer
from peftkit.quantizers.bitsandbytes import BitsAndBytes


def test_a_stored_checkpoint_names_its_quantizer() -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    found = stored_quantizer({"quantization_config": stored})
    assert isinstance(found, BitsAndBytes)
    assert (found.bits, found.config.bnb_4bit_quant_type) == (4, "nf4")
    assert stored_quantizer({}) is None
    assert stored_quantizer({"quantization_config": {"quant_method": "of-tomorrow"}}) is None
    assert stored_quantizer({"quantization_config": "text"}) is None
