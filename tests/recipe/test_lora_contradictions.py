"""What a LoRA is told is held together; the corpus of wrong recipes has a case for each rule."""

from __future__ import annotations

import pytest

from peftkit.recipe.lora_contradictions import RULES
from peftkit.recipe.schema import AdapterSection, Choice
from peftkit.recipe.stated import Stated


def found(**options) -> list[tuple[str, str, str | None]]:
    adapter = AdapterSection(Choice("lora", options))
    stated = Stated(model=None, data=None, adapter=adapter, method=None, evaluate=None,
                    stops_early=False, splits=None)  # fmt: skip
    return [one for rule in RULES for one in rule(stated)]


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"layers_to_transform": [1], "target_modules": "all-linear"}, "layers_to_transform"),
        ({"target_modules": "all"}, "target_modules"),
        ({"layers_pattern": "h"}, "layers_pattern"),
        ({"use_dora": True, "lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "eva"}, "init_lora_weights"),
    ],
)
def test_options_that_cannot_both_be_meant(options, key) -> None:
    assert [one[0] for one in found(**options)] == [f"adapter.lora.{key}"]


def test_options_that_go_together() -> None:
    assert found(r=8, target_modules=["q_proj"], layers_to_transform=[0, 1]) == []
