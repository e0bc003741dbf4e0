"""Summarising: the prompt, and a first-sentence baseline that is no straw man."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.tasks.summarize import Summarize, SummarizeConfig, first_sentence


def test_one_question_and_its_answer():
    task = Summarize(SummarizeConfig(document="body", summary="tldr", instruction="Sum up."))
    assert task.columns == ("body", "tldr")
    example = task.example({"body": "A long text.", "tldr": " Short. "})
    assert example.messages == (
        {"role": "user", "content": "Sum up.\n\nA long text."},
        {"role": "assistant", "content": "Short."},
    )
    bare = Summarize(SummarizeConfig(instruction=""))
    assert bare.example({"document": "A text.", "summary": "S."}).prompt[0]["content"] == "A text."


def test_rows_without_text_say_why():
    task = Summarize(SummarizeConfig())
    with pytest.raises(DataError, match=r"^document is null$"):
        task.example({"document": None, "summary": "S."})
    with pytest.raises(DataError, match=r"^summary is empty$"):
        task.example({"document": "D.", "summary": ""})


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("Read a file. Then close it.", "Read a file."),
        ("pkg.read(path, size=1.5)\n\nRead a file\nfrom disk. More.", "Read a file from disk."),
        ("pkg.mod.Class\n\nHolds rows! Yes.", "Holds rows!"),
        ("read(path) -> str\nRead it all. More.", "Read it all."),
        ("Use e.g. numpy.mean on it. More.", "Use e.g. numpy.mean on it."),
        ("1. First item here. Second.", "1. First item here."),
        ('He said "stop." Then left.', 'He said "stop."'),
        (
            "f(x)\n\nParameters\n----------\nx : int\n    The value.\n\nRuns for a while. End.",
            "Runs for a while.",
        ),
        ("f(x)\n\n>>> f(1.0)\n1. \n\nAdds one. End.", "Adds one."),
        ("f(x)\n\nReturns\n-------\nint\n    The sum.", "int The sum."),
        ("f(x)\n\nArgs:\n    x: The value.\n\nIt runs. Well.", "It runs."),
        ("no end at all\n\nsecond", "no end at all"),
        ("f(x)", "f(x)"),
        ("Is it? Yes.", "Is it?"),
    ],
)
def test_the_first_sentence_is_the_one_a_reader_would_pick(document, sentence):
    assert first_sentence(document) == sentence


def test_scores_and_baseline():
    task = Summarize(SummarizeConfig())
    scores = task.score(["a b"], ["a b"])
    assert list(scores) == ["rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf"]
    assert task.headline in scores
    assert task.baselines([{"document": "One here. Two.", "summary": "S"}]) == {
        "first_sentence": ["One here."]
    }
