"""Pairs of answers become examples, whatever form their columns have."""

from __future__ import annotations

import pytest
from preference_fixture import ROWS, conversations

from peftkit.errors import DataError
from peftkit.plugins import Question
from peftkit.scoring.prompts import answered_of_row, question_of_row, question_of_text
from peftkit.tasks.preference import PreferenceConfig, PreferenceTask
from peftkit.testing import check_task

TASK = PreferenceTask(PreferenceConfig(system="be brief"))


def test_it_conforms() -> None:
    assert check_task(PreferenceTask, {}, ROWS) == {"rougeL": 1.0}


def test_text_and_messages_say_the_same() -> None:
    texts = [TASK.example(row) for row in ROWS]
    assert texts == [TASK.example(row) for row in conversations().to_list()]


def test_an_implicit_prompt_is_what_both_answers_begin_with() -> None:
    task = PreferenceTask(PreferenceConfig(prompt=None))
    rows = conversations().to_list()
    whole = [{n: row["prompt"] + row[n] for n in ("chosen", "rejected")} for row in rows]
    assert [task.example(row) for row in whole] == [TASK.example(row) for row in rows]
    assert task.columns == ("chosen", "rejected")


def test_a_prompt_that_answers_repeat_is_taken_once() -> None:
    (row, *_) = conversations().to_list()
    whole = {**row, **{name: row["prompt"] + row[name] for name in ("chosen", "rejected")}}
    assert TASK.example(whole) == TASK.example(row)


def test_a_pair_is_asked_by_its_prompt_alone() -> None:
    one = TASK.example(ROWS[0])
    assert one.asked == [["system", "be brief"], ["user", "sort keys by name"]]
    assert one.question().messages == one.prompt
    assert one.texts == ("be brief", "sort keys by name", "sort the keys.", "a table of rows")
    assert one.reference == one.answer == "sort the keys."
    assert one.sample() == {"prompt": [dict(message) for message in one.prompt]}


def test_a_text_is_asked_under_the_system_message() -> None:
    asked = Question(messages=TASK.example(ROWS[0]).prompt)
    assert question_of_text(TASK, "sort keys by name") == asked
    assert question_of_row(TASK, {"prompt": "sort keys by name"}) == asked


def test_a_row_with_an_answer_can_be_judged() -> None:
    for row, answer in (
        (ROWS[0], "sort the keys."),
        ({**ROWS[0], "generated": "mine"}, "mine"),
        ({"prompt": "sort keys by name", "completion": "theirs"}, "theirs"),
    ):
        found = answered_of_row(TASK, row).messages
        assert found[:-1] == TASK.example(ROWS[0]).prompt
        assert found[-1] == {"role": "assistant", "content": answer}
    with pytest.raises(DataError, match="chosen is null"):
        answered_of_row(TASK, {"prompt": "sort keys by name"})
