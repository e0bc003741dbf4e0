"""Bits of other tools become bitsandbytes' options."""

from __future__ import annotations

import pytest

from peftkit.importers.quantized import put_bits
from peftkit.plugins.imported import Draft
from peftkit.plugins.importer import Foreign


@pytest.mark.parametrize(
    ("bits", "options"),
    [
        (8, {"load_in_8bit": True}),
        (4, {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4",
             "bnb_4bit_use_double_quant": False}),
        (3, None),
    ],
)  # fmt: skip
def test_bits(bits, options):
    draft = Draft(Foreign("c.yaml", {}))
    assert put_bits(draft, bits, kind="fp4", twice=False) is (options is not None)
    found = draft.recipe.get("model", {}).get("quantize", {})
    assert found.get("bitsandbytes") == options
