"""Metrics agree with numbers worked out by hand and with the packages they come from."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.tasks.metrics import (
    bleu_and_chrf,
    exact_match,
    rouge,
    rouge_note,
    sacrebleu_note,
    signatures,
    ter,
    token_f1,
)


def test_rouge_by_hand():
    scores = rouge(["the cat sat"], ["the cat ran away"])
    assert scores["rouge1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert scores["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert scores["rougeL"] == scores["rouge1"]


def test_the_stemmer_is_on_and_lines_are_sentences():
    assert rouge(["returns keys"], ["return key"])["rouge1"] == 1.0
    swapped = rouge(["b one\na two"], ["a two\nb one"])
    assert swapped["rougeLsum"] == 1.0
    assert swapped["rougeL"] == 0.5


def test_equal_texts_score_full_and_empty_answers_nothing():
    texts = ["read a file from disk now", "sort all keys by their name"]
    assert rouge(texts, texts) == dict.fromkeys(["rouge1", "rouge2", "rougeL", "rougeLsum"], 1.0)
    assert bleu_and_chrf(texts, texts) == pytest.approx({"bleu": 100.0, "chrf": 100.0})
    assert ter(texts, texts) == {"ter": 0.0}
    assert exact_match(texts, texts) == {"exact_match": 1.0}
    assert token_f1(texts, texts) == {"token_f1": 1.0}
    blank = ["", ""]
    assert rouge(blank, texts)["rougeL"] == 0.0
    assert bleu_and_chrf(blank, texts) == {"bleu": 0.0, "chrf": 0.0}
    assert ter(blank, texts) == {"ter": 100.0}
    assert token_f1(blank, texts) == {"token_f1": 0.0}


def test_word_f1_by_hand():
    assert token_f1(["a b b"], ["B c"]) == {"token_f1": pytest.approx(2 / 5)}
    assert exact_match([" a "], ["a"]) == {"exact_match": 1.0}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=4))
def test_any_text_scores_within_bounds(pairs):
    answers, references = [list(side) for side in zip(*pairs, strict=True)]
    unit = {
        **rouge(answers, references),
        **exact_match(answers, references),
        **token_f1(answers, references),
    }
    assert all(0 <= score <= 1 for score in unit.values())
    percent = bleu_and_chrf(answers, references)
    assert all(0 <= score <= 100 + 1e-9 for score in percent.values())


@pytest.mark.parametrize("metric", [rouge, bleu_and_chrf, ter, exact_match, token_f1])
def test_nothing_to_score_is_an_error(metric):
    with pytest.raises(DataError) as caught:
        metric([], [])
    assert caught.value.message == "cannot score 0 answers against 0 references"
    with pytest.raises(DataError, match="cannot score 1 answers against 2 references"):
        metric(["a"], ["a", "b"])


def test_signatures_name_the_settings():
    found = signatures()
    assert set(found) == {"bleu", "chrf", "ter"}
    assert "tok:13a" in found["bleu"]
    assert "nc:6" in found["chrf"]


def test_notes_quote_the_versions_and_options_that_made_the_numbers() -> None:
    assert rouge_note() == (
        f"ROUGE: F1 of rouge-score {version('rouge-score')}, stemmer on,"
        " sentences split at newlines, words of every script (characters, where it has no spaces)."
    )
    note = sacrebleu_note("bleu", "ter")
    assert note == f"By sacrebleu: bleu {signatures()['bleu']}, ter {signatures()['ter']}."
    assert f"version:{version('sacrebleu')}" in note
