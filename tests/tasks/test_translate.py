"""Translating: prompts from language names, nested columns, the copy baseline."""

from __future__ import annotations

import pytest

from peftkit.tasks.translate import Translate, TranslateConfig


@pytest.mark.parametrize(
    ("options", "instruction"),
    [
        ({}, "Translate the text."),
        (
            {"source_language": "English", "target_language": "German"},
            "Translate from English to German.",
        ),
        ({"target_language": "German"}, "Translate to German."),
        ({"instruction": "Auf Deutsch:", "target_language": "German"}, "Auf Deutsch:"),
    ],
)
def test_the_instruction_names_the_languages(options, instruction):
    task = Translate(TranslateConfig(**options))
    prompt = task.example({"source": "hello", "target": "hallo"}).prompt
    assert prompt == ({"role": "user", "content": f"{instruction}\n\nhello"},)


def test_nested_columns_scores_and_copy():
    task = Translate(
        TranslateConfig(source="translation.en", target="translation.de", instruction="")
    )
    row = {"translation": {"en": "hello", "de": "hallo"}}
    assert task.example(row).messages[0]["content"] == "hello"
    assert task.example(row).reference == "hallo"
    assert task.baselines([row]) == {"copy": ["hello"]}
    scores = task.score(["hallo"], ["hallo"])
    assert list(scores) == ["bleu", "chrf", "ter"]
    assert task.headline in scores


def test_a_column_names_each_row_s_target_language():
    task = Translate(TranslateConfig(target_language_column="language"))
    assert task.columns == ("source", "target", "language")
    for language in ("de", "fr"):
        row = {"source": "hello", "target": "x", "language": language}
        assert task.example(row).texts[0] == f"Translate to {language}.\n\nhello"
