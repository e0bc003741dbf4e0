"""A quantizer that says nothing of its own has every answer, and none of them is a guess."""

from __future__ import annotations

import pytest
import torch

from peftkit.errors import UsageError
from peftkit.plugins import Chosen, missing_members
from peftkit.plugins.quantizer import PLAIN, Quantizer


class Silent(Quantizer):
    """Say nothing."""

    Config = "transformers:EetqConfig"


class Keeping(Silent):
    """Leave modules out."""

    keeps_modules = "left_out"


def test_a_config_is_all_that_a_quantizer_needs() -> None:
    assert missing_members(Silent, "quantizers") == []
    assert missing_members(Quantizer, "quantizers") == ["Config"]
    made = Silent("its config")
    assert made.native == made.config == "its config"
    assert (made.bits, made.storage) == (None, None)
    assert made.num_weights(torch.zeros(3, 4)) == 12
    assert made.there_and_back(torch.zeros(2, 2)) is None
    assert list(Silent.conflicts({"a": 1})) == []
    assert list(Silent.proposals(dtype="bfloat16")) == []
    assert Silent.trials() == {"": {}}
    assert Silent.compute_dtype({}, dtype="float16") == "float16"
    with pytest.raises(UsageError, match="FSDP2 cannot shard"):
        made.replicated(None)


def test_new_modules_are_kept_where_an_option_keeps_them() -> None:
    assert list(Silent.decide({}, dtype="float32", kept_modules=("score",))) == []
    assert list(Keeping.decide({}, dtype="float32", kept_modules=())) == []
    (decision,) = Keeping.decide({}, dtype="float32", kept_modules=("score",))
    assert isinstance(decision, Chosen)
    assert (decision.option, decision.value) == ("left_out", ["score"])


def test_a_base_that_is_not_quantized_packs_nothing() -> None:
    layer = torch.nn.Linear(2, 2)
    weight = layer.weight
    PLAIN.convert(layer)  # type: ignore[arg-type]
    assert layer.weight is weight
    assert PLAIN.pack(layer, None) == []  # type: ignore[arg-type]
    assert list(PLAIN.side_tensors(layer)) == []
    assert not PLAIN.is_packed(layer)
    assert PLAIN.draw(weight, layer, lambda: weight) is None
