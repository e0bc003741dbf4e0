"""SQuAD's columns are known by their names and by where their answers stand."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.preprocessing.guess_questions import guess_questions
from peftkit.preprocessing.guess_task import guess_task, take_task

SQUAD = {"id": "1", "title": "T", "question": "Who?", "context": "It was Ada."}
NESTED = {"text": ["Ada"], "answer_start": [7]}
NONE: dict[str, list] = {"text": [], "answer_start": []}


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        ([{**SQUAD, "answers": NESTED}], {}),
        ([{**SQUAD, "answers": NESTED}, {**SQUAD, "answers": NONE}],
         {"version_2_with_negative": True}),
        ([{**SQUAD, "answers": [{"text": "Ada", "answer_start": 7}]}], {}),
        ([{**SQUAD, "answers": ["Ada"]}], {"search": True}),
        ([{**SQUAD, "answer": "Ada", "answer_start": 7}],
         {"answers": "answer", "answer_start": "answer_start"}),
    ],
    ids=["nested", "negative", "objects", "texts", "flat"],
)  # fmt: skip
def test_the_shapes_of_answers(rows: list[dict[str, Any]], more: dict[str, Any]) -> None:
    guess = guess_task(rows, file="a.json")
    assert guess.task == "question_answering"
    assert guess.options == {
        "question": "question", "context": "context", "answers": "answers", **more,
    }  # fmt: skip
    assert "columns 'question', 'context' and" in guess.reason


def test_an_answer_without_a_place_is_written_unless_it_is_asked_for() -> None:
    rows = [{"question": "Who?", "context": "It was Ada.", "answer": "Ada"}]
    assert guess_task(rows, file="a.json").task == "prompt_completion"
    taken = take_task("question_answering", {}, rows, file="a.json")
    assert taken.options == {
        "question": "question", "context": "context", "answers": "answer", "search": True,
    }  # fmt: skip


def test_rows_without_any_answer_are_none_of_it() -> None:
    rows = [{**SQUAD, "answers": NONE}]
    assert guess_questions(rows, ["question", "context"], is_asked=False) is None
