"""A prompt becomes what the run's task would ask, and a row needs no answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import DataError, UsageError
from peftkit.plugins import Conversation, Question, Task
from peftkit.scoring.prompts import STAND_IN, question_of_row, question_of_text
from peftkit.tasks.chat import Chat, ChatConfig
from peftkit.tasks.prompt_completion import PromptCompletion, PromptCompletionConfig
from peftkit.tasks.summarize import Summarize, SummarizeConfig
from peftkit.tasks.text import PlainText, PlainTextConfig
from peftkit.tasks.translate import Translate, TranslateConfig


class AnswerFirst(Task):
    """A third party's task whose answer's column comes first, and whose question takes one."""

    makes = (Conversation,)
    columns = ("label", "text")

    def example(self, row: Mapping[str, Any]) -> Conversation:
        asked = {"role": "user", "content": f"Classify: {row['text']}"}
        return Conversation((asked, {"role": "assistant", "content": row["label"]}))


class Two(Task):
    """A task that asks about two columns at once."""

    makes = (Conversation,)
    columns = ("question", "context", "answer")

    def example(self, row: Mapping[str, Any]) -> Conversation:
        asked = {"role": "user", "content": f"{row['question']} {row['context']}"}
        return Conversation((asked, {"role": "assistant", "content": row["answer"]}))


TASKS = {
    "summarize": (Summarize(SummarizeConfig()), "Summarize the text.\n\n"),
    "own instruction": (Summarize(SummarizeConfig(instruction="TL;DR")), "TL;DR\n\n"),
    "translate": (
        Translate(TranslateConfig(source="t.en", target="t.de", target_language="German")),
        "Translate to German.\n\n",
    ),
    "prompt": (PromptCompletion(PromptCompletionConfig()), ""),
    "answer first": (AnswerFirst(), "Classify: "),
    "chat": (Chat(ChatConfig()), ""),
}


@pytest.mark.parametrize("name", TASKS)
@given(text=st.text(min_size=1).filter(lambda text: text.strip() and STAND_IN not in text))
def test_a_text_is_asked_as_the_task_asks(name: str, text: str) -> None:
    task, opening = TASKS[name]
    question = question_of_text(task, text)
    (message,) = question.messages
    assert message["role"] == "user"
    assert message["content"].strip() == f"{opening}{text}".strip()


def test_the_system_message_of_a_task_is_kept() -> None:
    task = PromptCompletion(PromptCompletionConfig(system="Be brief."))
    question = question_of_text(task, "Why?")
    assert [message["role"] for message in question.messages] == ["system", "user"]


def test_running_text_is_continued() -> None:
    assert question_of_text(PlainText(PlainTextConfig()), "Once") == Question(text="Once")


def test_a_question_about_two_columns_wants_rows() -> None:
    with pytest.raises(UsageError, match="several columns at once: question, context\n"):
        question_of_text(Two(), "Why?")
    row = {"question": "Why?", "context": "Because."}
    assert question_of_row(Two(), row).messages[0]["content"] == "Why? Because."
    with pytest.raises(DataError, match="the row has no context, which the question needs"):
        question_of_row(Two(), {"question": "Why?"})
    asked = question_of_text(Two(), "Why?", {"context": "Because."})
    assert asked.messages[0]["content"] == "Why? Because."
    asked = question_of_text(Two(), "Because.", {"question": "Why?"})
    assert asked.messages[0]["content"] == "Why? Because."
    with pytest.raises(UsageError, match="reads no column 'contxt'"):
        question_of_text(Two(), "Why?", {"contxt": "Because."})


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match="the prompt is empty"):
        question_of_text(TASKS["summarize"][0], prompt)


@pytest.mark.parametrize("name", ["summarize", "translate", "prompt", "answer first"])
def test_a_row_is_asked_as_in_training_whether_or_not_it_has_an_answer(name: str) -> None:
    task, _ = TASKS[name]
    row: dict[str, Any] = {"document": "A text.", "summary": "A.", "prompt": "A text.",
                           "completion": "A.", "t": {"en": "A text.", "de": "Ein."},
                           "text": "A text.", "label": "A."}  # fmt: skip
    trained = tuple(task.example(row).prompt)
    for answer in ("summary", "completion", "label"):
        row.pop(answer)
    row["t"] = {"en": "A text.", "fr": None}
    if name != "prompt":
        row.pop("prompt")
    assert question_of_row(task, row).messages == trained


def test_a_conversation_may_end_with_the_user() -> None:
    task = Chat(ChatConfig())
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    asked = [*turns, {"role": "user", "content": "Why?"}]
    assert question_of_row(task, {"messages": asked}).messages == tuple(asked)
    assert question_of_row(task, {"messages": turns}).messages == tuple(turns[:1])


def test_a_row_without_the_task_s_columns_may_hold_a_prompt() -> None:
    task, _ = TASKS["summarize"]
    assert question_of_row(task, {"prompt": "A text."}) == question_of_text(task, "A text.")
    with pytest.raises(
        DataError, match="the row has none of document, summary, prompt or messages"
    ):
        question_of_row(task, {"txt": "A text."})


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (["hello", {"role": "user", "content": "a"}], "messages holds text where a message"),
        ([{"role": "user", "content": 3}], "whose content is no text but a number"),
    ],
)
def test_malformed_messages_are_named(messages: list, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        question_of_row(Chat(ChatConfig()), {"messages": messages})


def test_a_row_whose_text_cannot_be_used_says_why() -> None:
    task = TASKS["summarize"][0]
    with pytest.raises(DataError, match="document is only whitespace"):
        question_of_row(task, {"document": " ", "summary": None})
    with pytest.raises(DataError, match="the row has no document, which the question needs"):
        question_of_row(task, {"document": None, "summary": "A."})
