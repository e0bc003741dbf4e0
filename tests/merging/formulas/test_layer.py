"""One layer's scale and rank, from patterns as PEFT reads them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from peftkit.errors import ArtefactError
from peftkit.merging.formulas.layer import Layer, matching_pattern
from peftkit.merging.weights_io import Tensor

MODULE = "model.layers.1.self_attn.q_proj"


def layer(**config) -> Layer:
    weight = Tensor("w", Path("x"), "F32", (8, 4), 0)
    return Layer(MODULE, {}, {"r": 3, "lora_alpha": 7, **config}, weight, None, False)


def test_scale_is_alpha_by_r_or_its_root() -> None:
    assert layer().scale(3) == 7 / 3
    assert layer(use_rslora=True).scale(3) == 7 / math.sqrt(3)
    assert layer(alpha_pattern={"q_proj": 9}).scale(3) == 3.0
    assert layer(rank_pattern={r"layers\.1\..*": 5}).rank() == 5
    assert layer(rank_pattern={r"layers\.2\..*": 5}).rank() == 3
    assert layer().sides == (8, 4)


@given(st.lists(st.sampled_from(["q_proj", "proj", r".*\.1\..*", "self_attn.q_proj", "x"]),
                unique=True))  # fmt: skip
def test_patterns_match_as_in_peft(patterns: list[str]) -> None:
    assert matching_pattern(patterns, MODULE) == get_pattern_key(patterns, MODULE)


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ArtefactError, match="is no regular expression"):
        matching_pattern(["("], MODULE)
