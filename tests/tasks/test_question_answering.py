"""Rows of SQuAD's shape, and what is wrong with some of them."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.errors import DataError
from peftkit.plugins import Span
from peftkit.tasks.question_answering import (
    QuestionAnswering,
    QuestionAnsweringConfig,
    next_words,
)
from peftkit.testing import check_task

CONTEXT = "In 1989 the wall fell, and the wall was gone."


def task(**options: Any) -> QuestionAnswering:
    return QuestionAnswering(QuestionAnsweringConfig(**options))


def row(answers: Any, **others: Any) -> dict[str, Any]:
    return {"question": " what fell? ", "context": CONTEXT, "answers": answers, **others}


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["wall", "the wall"], "answer_start": [12, 8]},
        [{"text": "wall", "answer_start": 12}, {"text": "the wall", "answer_start": 8}],
        {"text": [" wall ", "the wall"], "answer_start": [11, 8]},
    ],
    ids=["lists", "objects", "spaces"],
)
def test_every_shape_of_answers_gives_the_same_example(answers: Any) -> None:
    example = task().example(row(answers))
    assert example.spans == (Span("wall", 12), Span("the wall", 8))
    assert example.asks == "what fell?"
    assert example.reference == "wall\nthe wall"
    assert example.problem() == ""
    assert example.kept_together == CONTEXT


def test_an_answer_in_columns_of_its_own() -> None:
    flat = task(answers="answer", answer_start="at").example(
        {"question": "when?", "context": CONTEXT, "answer": "1989", "at": 3}
    )
    assert flat.spans == (Span("1989", 3),)


def test_answers_are_looked_for_where_that_is_asked() -> None:
    found = task(search=True)
    assert found.example(row("wall")).spans == (Span("wall", 12),)
    assert found.example(row({"text": ["wall"], "answer_start": [30]})).spans[0].start == 31
    assert found.example(row(["wall", "1989"])).spans == (Span("wall", 12), Span("1989", 3))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": ["wall"], "answer_start": [13]},
         "the answer 'wall' is not at answer_start 13 ('all '): it stands at 12; search: true"),
        ({"text": ["gate"], "answer_start": [13]}, "the answer 'gate' stands nowhere in its"),
        ({"text": ["wall"], "answer_start": [-2]}, "is not at answer_start -2"),
        ({"text": ["wall"], "answer_start": [900]}, r"is not at answer_start 900 (''): it stands"),
        ("wall", "the answer 'wall' has no answer_start: it stands at 12; search: true"),
        ({"text": [], "answer_start": []}, "answers holds no answer: version_2_with_negative"),
        (None, "answers holds no answer"),
        ({"text": ["wall"], "answer_start": []}, "1 texts and 0 answer_starts"),
        ({"text": [" "], "answer_start": [2]}, "answers holds an empty answer"),
        (5, "answers is a number, not answers"),
        ([{"answer_start": 3}], "answers holds an object, not an answer with its text"),
        ([{"text": "wall", "answer_start": "12"}], "answer_start is text, not a whole number"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_refused_with_its_value(answers: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        task().example(row(answers))
    assert message in caught.value.message


def test_a_question_needs_no_answer_to_be_asked() -> None:
    assert task().question({"question": "what?", "context": CONTEXT}).texts == ("what?", CONTEXT)
    with pytest.raises(DataError, match="context is empty"):
        task().question({"question": "what?", "context": ""})
    negative = task(version_2_with_negative=True)
    assert negative.example(row({"text": [], "answer_start": []})).reference == ""
    assert negative.has_unanswerable
    assert not task().has_unanswerable


def test_the_baseline_takes_what_follows_the_rarest_word() -> None:
    assert next_words("Which year did the wall fall?", CONTEXT) == "fell and the"
    assert (
        next_words("When was it gone, the wall?", "x : int, optional\n  Size.") == "x int optional"
    )
    assert next_words("type of x?", "y : str\nx : int, optional\n  Size.") == "int optional Size"


def test_the_conformance_checks_hold() -> None:
    rows = [
        row({"text": ["wall"], "answer_start": [12]}),
        {"question": "when?", "context": CONTEXT,
         "answers": {"text": ["1989"], "answer_start": [3]}},
    ]  # fmt: skip
    check_task(QuestionAnswering, {}, rows)
