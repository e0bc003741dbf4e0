"""What classes say about their options is found in whichever form they say it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from peftkit.recipe.docstrings import (
    field_docs,
    first_paragraph,
    first_sentence,
    kind_of_text,
    option_docs,
)


class Upstream:
    """
    A class of another library.

    Args:
        r (`int`):
            The rank of
            the update.
        alpha, beta (`float`, *optional*, defaults to `1.0`):
            Two scales:
            - "a": this one
        `plain` : no type

    Example:
        >>> Upstream(r=1)
    """

    def __init__(self, r: int) -> None:
        """
        Args:
            r (`int`): The rank, said again.
        """
        self.r = r


@dataclass
class Ours:
    """Hold one."""

    rank: int = 1
    """The rank,
    in numbers."""
    silent: int = 2


def test_args_blocks_are_read_and_the_constructor_wins() -> None:
    docs = option_docs(Upstream)
    assert docs["r"] == ("`int`", "The rank, said again.")
    assert docs["alpha"][1] == 'Two scales: - "a": this one'
    assert docs["beta"] == docs["alpha"]


def test_attribute_docstrings_are_read() -> None:
    assert field_docs(Ours) == {"rank": "The rank, in numbers."}


def test_a_class_without_source_has_no_field_docs() -> None:
    assert field_docs(type("Made", (), {})) == {}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("`int`, *optional*, defaults to 20", "int"),
        ("`int` or `list[int]`, *optional*", "int or a list of int"),
        ("`Union[int, list[str]]`", "int or a list of str"),
        ("`Optional[bool]`", "bool or null"),
        ("`dict[str, float]`", "a mapping of float"),
        ("`torch.dtype` or str, *optional*", "str"),
        ("`list[list[int]]`", "a list of a list of int"),
        ("something said in words", "any"),
        ("`MyConfig`", "any"),
    ],
)
def test_types_in_words_are_read(written: str, said: str) -> None:
    assert str(kind_of_text(written)) == said


def test_the_first_paragraph_stands_on_one_line() -> None:
    assert first_paragraph("One\n  two.\n\nMore.") == "One two."
    assert first_paragraph(None) == ""


def test_an_abbreviation_ends_no_sentence() -> None:
    assert (
        first_sentence("A folder, e.g. `x`, i.e. a place. More.")
        == "A folder, e.g. `x`, i.e. a place."
    )
    assert first_sentence("No stop") == "No stop"
    assert first_sentence(None) == ""
