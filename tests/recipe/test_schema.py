"""The nouns are frozen, and every field says what it is."""

from __future__ import annotations

import dataclasses

import pytest

from peftkit.recipe import schema
from peftkit.recipe.docstrings import field_docs
from peftkit.scoring.generation import MAX_NEW_TOKENS

NOUNS = [
    value
    for value in vars(schema).values()
    if dataclasses.is_dataclass(value) and value.__module__ == schema.__name__
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_a_noun_is_frozen_and_documented(noun: type) -> None:
    assert noun.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert noun.__doc__
    if noun.__name__.endswith("Section"):
        assert set(field_docs(noun)) == {item.name for item in dataclasses.fields(noun)}


def test_the_limit_of_an_answer_that_explain_shows_is_the_one_that_holds() -> None:
    said = field_docs(schema.EvaluateSection)["generation"]
    assert f"`max_new_tokens` {MAX_NEW_TOKENS}, unless stated" in said


def test_there_are_all_of_them() -> None:
    assert len(NOUNS) >= 9
