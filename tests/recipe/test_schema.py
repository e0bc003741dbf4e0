"""Each key of a section says what it is, as `explain` shows it."""

from __future__ import annotations

import dataclasses

import pytest

from peftkit.recipe import schema
from peftkit.recipe.docstrings import field_docs
from peftkit.scoring.generation import MAX_NEW_TOKENS

SECTIONS = [
    value
    for value in vars(schema).values()
    if dataclasses.is_dataclass(value) and value.__name__.endswith("Section")
]


@pytest.mark.parametrize("noun", SECTIONS, ids=lambda noun: noun.__name__)
def test_a_section_documents_each_of_its_keys(noun: type) -> None:
    assert set(field_docs(noun)) == {item.name for item in dataclasses.fields(noun)}


def test_the_limit_of_an_answer_that_explain_shows_is_the_one_that_holds() -> None:
    said = field_docs(schema.EvaluateSection)["generation"]
    assert f"`max_new_tokens` {MAX_NEW_TOKENS}, unless stated" in said
