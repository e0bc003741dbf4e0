"""Alpaca's prompt by a format of the recipe, byte for byte, and what an empty column does."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import DataError, EmptyValueError, UsageError
from peftkit.plugins.formats import read_format
from peftkit.plugins.rendering import Rendering
from peftkit.sources.columns import stands_for_nothing
from peftkit.sources.formats import check_format, columns_of, fill, rendering_for, system_columns

ALPACA = """\
Below is an instruction that describes a task{#input}, paired with an input that provides further \
context{/input}. Write a response that appropriately completes the request.

### Instruction:
{instruction}

{#input}### Input:
{input}

{/input}### Response:
"""


def alpaca(row: dict[str, str]) -> str:
    """Write the prompt as the two templates of Stanford's code do, a line behind the response."""
    if row["input"]:
        return (
            "Below is an instruction that describes a task, paired with an input that provides"
            " further context. Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{row['instruction']}\n\n### Input:\n{row['input']}\n\n"
            "### Response:\n"
        )
    return (
        "Below is an instruction that describes a task. Write a response that appropriately"
        f" completes the request.\n\n### Instruction:\n{row['instruction']}\n\n### Response:\n"
    )


def test_alpaca_s_prompt_with_and_without_an_input() -> None:
    source = random.Random(0)
    pieces = ["sum", "naïve", "{x}", "a\n\nb", "```py\n{'a': 1}\n```", "東京"]
    for number in range(100):
        some = source.choices(pieces, k=3)
        row = {"instruction": " ".join(some), "input": source.choice(["", some[0]])}
        assert fill(read_format(ALPACA), row) == alpaca(row), number


@given(st.dictionaries(st.sampled_from("abc"), st.text(min_size=1).filter(str.strip), min_size=3))
def test_without_parts_a_format_is_python_s_own(row: dict[str, str]) -> None:
    text = "{{{a}}} of {b}, {{c}}: {c}"
    row = {key: "x" if stands_for_nothing(value) else value for key, value in row.items()}
    assert fill(read_format(text), row) == text.format(**row)


def test_numbers_are_text_and_objects_are_not() -> None:
    assert fill(read_format("{n} of {m.k}"), {"n": 3, "m": {"k": 0.5}}) == "3 of 0.5"
    with pytest.raises(DataError, match="n is not text but a list"):
        fill(read_format("{n}"), {"n": [1]})
    with pytest.raises(EmptyValueError, match="a, b: all of them are empty"):
        fill(read_format("{a}{b}"), {"a": None, "b": " "})


def test_what_an_option_reads() -> None:
    assert columns_of("document") == ("document",)
    assert columns_of("{a}{#b}{b}{/b}") == ("a", "b")
    with pytest.raises(UsageError, match="prompt: it names no column"):
        check_format("prompt", "{{}}")
    with pytest.raises(UsageError, match=r"prompt: a lone \{"):
        check_format("prompt", "{ a")


def test_a_system_message_of_a_column() -> None:
    said = Rendering(system="You are {persona}.")
    assert system_columns(said) == ("persona",)
    assert rendering_for(said, {"persona": "Ada"}).system == "You are Ada."
    assert rendering_for(said, {}).system is None
    assert rendering_for(Rendering(system="Use {{braces}}"), {}).system == "Use {braces}"
    plain = Rendering(system="You help.")
    assert rendering_for(plain, {}) is plain
