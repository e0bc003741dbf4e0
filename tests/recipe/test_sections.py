"""Sections that a person writes in another form are read, or refused with the right one."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.recipe.schema import Choice
from peftkit.recipe.sections import pick, read_sections
from peftkit.recipe.strict import Gate


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ({"lora": {"r": 8}}, Choice("lora", {"r": 8})),
        ({"lora": None}, Choice("lora", {})),
        ({}, None),
        ({"a": {}, "b": {}}, None),
        ("lora", None),
        (["lora"], None),
        (None, None),
        (3, None),
    ],
)
def test_one_key_picks(value: Any, choice: Choice | None) -> None:
    gate = Gate("x.yaml", {"adapter": 1, "adapter.a": 2, "adapter.b": 3})
    assert pick(gate, "adapter", value, "adapter") == choice
    assert bool(gate.problems) == (choice is None)


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"x": 1}, True])
def test_sections_of_any_shape_end_in_problems_not_in_a_crash(value: Any) -> None:
    names = ("model", "data", "adapter", "method", "memory", "evaluate", "name")
    for name in names:
        gate = Gate("x.yaml", {})
        read_sections(gate, {name: value})
        assert gate.problems


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, {"x": 1}, True])
@pytest.mark.parametrize(
    "key",
    [("model", "path"), ("model", "config"), ("model", "quantize"), ("model", "tokenizer"),
     ("data", "source"), ("data", "splits"), ("data", "task"), ("data", "audit"),
     ("memory", "budget"), ("evaluate", "generation"), ("adapter", "from"), ("adapter", "lora"),
     ("method", "sft"), ("data", "source", "json"), ("data", "source", "json", "files"),
     ("model", "quantize", "bitsandbytes")],
)  # fmt: skip
def test_keys_of_any_shape_end_in_problems_not_in_a_crash(key: tuple[str, ...], value: Any) -> None:
    data: Any = value
    for part in reversed(key):
        data = {part: data}
    gate = Gate("x.yaml", {})
    read_sections(gate, data)
    assert gate.problems
