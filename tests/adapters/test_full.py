"""Full fine-tuning trains everything, and refuses a base that cannot take updates."""

from __future__ import annotations

import pytest

from peftkit.adapters.base import count_parameters
from peftkit.adapters.full import Full
from peftkit.errors import UsageError
from peftkit.models.base import load_base
from peftkit.plugins import CAUSAL_LM
from peftkit.recipe.schema import ModelSection


def test_every_parameter_is_trainable(tiny_model) -> None:
    base = load_base(ModelSection(path=str(tiny_model)), kind=CAUSAL_LM)
    model = Full().attach(base.requires_grad_(False))
    trainable, total = count_parameters(model)
    assert trainable == total > 0
    assert (Full.conflicts({}, "sft", {}), Full.decide("sft", {}), Full().callbacks()) == (
        [],
        (),
        (),
    )


def test_a_quantized_base_is_refused(tiny_model) -> None:
    from transformers import BitsAndBytesConfig

    from peftkit.quantizers.bitsandbytes import BitsAndBytes

    base = load_base(
        ModelSection(path=str(tiny_model)),
        kind=CAUSAL_LM,
        quantizer=BitsAndBytes(BitsAndBytesConfig(load_in_8bit=True)),
    )
    with pytest.raises(UsageError, match="cannot train a quantized base") as caught:
        Full().attach(base)
    assert "remove model.quantize" in caught.value.hint
