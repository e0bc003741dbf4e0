"""What a rule may ask of a recipe."""

from __future__ import annotations

from peftkit.recipe.schema import Choice
from peftkit.recipe.stated import Stated, is_count


def test_only_what_is_stated_is_said() -> None:
    stated = Stated(
        None, None, None, Choice("sft", {"bf16": True, "max_length": None}), None, False, {}
    )
    assert stated.says("bf16")
    assert stated.says("max_length", None)
    assert not stated.says("fp16")
    assert not stated.says("fp16", None)
    assert stated.at("bf16") == "method.sft.bf16"
    assert not stated.has_split("test")


def test_nothing_is_stated_by_a_section_that_could_not_be_read() -> None:
    stated = Stated(None, None, None, None, None, False, None)
    assert stated.options == {}
    assert stated.has_split("test")


def test_counts_are_whole_numbers_above_zero() -> None:
    assert [v for v in (1, 0, -1, True, 1.0, "1", None) if is_count(v)] == [1]
