"""What upstream will drop is said by its key, and nothing is printed or swallowed beside it."""

from __future__ import annotations

import warnings

import pytest

from peftkit.recipe.upstream_hints import caught_hints, valid_generation


def test_a_warning_of_an_option_becomes_a_hint() -> None:
    hints: list[str] = []
    with caught_hints("method.sft", {"gradient_checkpointing": True}, hints):
        warnings.warn("`gradient_checkpointing` is\n deprecated", FutureWarning, stacklevel=1)
    assert hints == ["method.sft.gradient_checkpointing: `gradient_checkpointing` is deprecated"]


def test_a_value_tells_its_option_before_any_name_does() -> None:
    hints: list[str] = []
    options = {"packing": True, "packing_strategy": "old"}
    with caught_hints("method.sft", options, hints):
        warnings.warn("The `old` packing strategy was renamed", FutureWarning, stacklevel=1)
    assert hints == ["method.sft.packing_strategy: The `old` packing strategy was renamed"]


def test_a_warning_of_anything_else_goes_on() -> None:
    hints: list[str] = []
    with pytest.warns(FutureWarning, match="something else"), caught_hints("m", {"a": 1}, hints):
        warnings.warn("something else", FutureWarning, stacklevel=1)
    assert hints == []


def test_options_to_generate_are_judged_before_anything_is() -> None:
    assert valid_generation({"max_new_tokens": 4}).max_new_tokens == 4
    with pytest.raises(ValueError, match="max_new_tokens"):
        valid_generation({"max_new_tokens": -1})
