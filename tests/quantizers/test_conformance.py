"""A quantizer that says what is not so is caught, by name."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.plugins import Chosen
from peftkit.quantizers.bitsandbytes import BitsAndBytes
from peftkit.quantizers.bitsandbytes_storage import BitsAndBytesStorage
from peftkit.quantizers.conformance import option_problems
from peftkit.testing import check_quantizer

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


class Thick(BitsAndBytesStorage):
    """Pack with one scale too many."""

    def side_tensors(self, module: Any) -> Any:
        import torch

        held = list(super().side_tensors(module))
        yield from held
        if held and "FakeTensor" in type(module.weight.data).__name__:
            yield torch.empty(1)


def _wrong(**members: Any) -> type[BitsAndBytes]:
    return type("Wrong", (BitsAndBytes,), {"__doc__": "Say what is not so.", **members})


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"keeps_modules": "skip"}, "keeps_modules is 'skip', which is no option"),
        ({"decide": classmethod(lambda *_, **__: [("a", 1)])}, "decide.. returned"),
        ({"decide": classmethod(lambda *_, **__: [Chosen("x", 1, "y")])}, "sets 'x', which is"),
        (
            {"decide": classmethod(lambda *_, **__: [Chosen("load_in_8bit", 1, "")])},
            "no reason for load_in_8bit",
        ),
        ({"conflicts": classmethod(lambda *_: [("", "wrong", None)])}, "conflicts.. finds"),
        ({"trials": classmethod(lambda _: {"": {"load_in_5bit": True}})}, "load_in_5bit"),
        ({"proposals": classmethod(lambda _, dtype: [{"bits": dtype}])}, "has no such key"),
    ],
)
def test_what_is_said_of_options_is_checked(members: dict[str, Any], complaint: str) -> None:
    import re

    assert option_problems(BitsAndBytes, NF4) == []
    assert re.search(complaint, "; ".join(option_problems(_wrong(**members), NF4)))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"num_weights": lambda _, parameter: parameter.numel()}, "num_weights.. counts"),
        ({"bits": 99}, "bits is 99"),
        ({"there_and_back": lambda _, weight: weight[0]}, "there_and_back.. makes"),
        ({"storage": Thick()}, "bytes, and .* are planned"),
        ({"prepare": lambda _, model: model.requires_grad_(False) and 1 / 0}, "does not train"),
    ],
)
def test_what_a_base_shows_is_checked(members: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_quantizer(_wrong(**members), NF4)
