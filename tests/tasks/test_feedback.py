"""Answers with a verdict become examples; a verdict is true or false and nothing else."""

from __future__ import annotations

import pytest
from preference_fixture import VERDICTS, conversations

from peftkit.errors import DataError
from peftkit.scoring.prompts import question_of_row, question_of_text
from peftkit.tasks.feedback import Feedback, FeedbackConfig
from peftkit.testing import check_task

TASK = Feedback(FeedbackConfig(system="be brief"))


def test_it_conforms() -> None:
    assert check_task(Feedback, {}, VERDICTS) == {"rougeL": 1.0}


def test_text_and_messages_say_the_same() -> None:
    rows = conversations(judged=True).to_list()
    assert [TASK.example(row) for row in VERDICTS] == [TASK.example(row) for row in rows]
    assert [TASK.example(row).is_good for row in VERDICTS] == [True, False] * 4


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "null"), (1, "a number"), ("yes", "text"), (0.5, "a number"), ([True], "a list")],
)
def test_a_label_that_is_no_verdict_is_refused(value: object, said: str) -> None:
    with pytest.raises(DataError, match=f"label is {said}, not true or false"):
        TASK.example({**VERDICTS[0], "label": value})


def test_a_prompt_is_asked_without_answer_and_verdict() -> None:
    asked = TASK.example(VERDICTS[0]).question()
    assert question_of_text(TASK, "sort keys by name") == asked
    assert question_of_row(TASK, {"prompt": "sort keys by name"}) == asked
