"""Texts with columns in braces are read as they are written, and wrong braces are named."""

from __future__ import annotations

import pytest

from peftkit.plugins.formats import is_format, read_format


def test_columns_are_named_once_and_those_of_parts_are_optional() -> None:
    found = read_format("{a} and {b.c}{#d}, {d} of {a}{/d}{#e}!{/e} {{braces}}")
    assert found.columns == ("a", "b.c", "d", "e")
    assert found.optional == ("d", "e")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{a", "a lone { at character 0"),
        ("a} b", "a lone } at character 1"),
        ("{#a}x", "{#a} is not closed by {/a}"),
        ("x{/a}", "{/a} closes no part that {#a} opens"),
        ("{#a}{#b}{/a}{/b}", "{/a} closes no part that {#a} opens"),
        ("{}", "a lone { at character 0"),
    ],
)
def test_braces_that_mean_nothing(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_format(text)
    assert str(caught.value) == problem


def test_a_column_s_name_is_no_format() -> None:
    assert not is_format("document")
    assert is_format("{document}")
