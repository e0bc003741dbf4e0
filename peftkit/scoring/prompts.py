"""Turn a person's prompt, or a row without an answer, into what a run's task asks its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, UsageError
from peftkit.plugins.examples import Question
from peftkit.sources.columns import put
from peftkit.sources.messages import read_messages, read_tools

if TYPE_CHECKING:
    from peftkit.plugins import Task

STAND_IN = "\N{LEFT WHITE CORNER BRACKET}answer\N{RIGHT WHITE CORNER BRACKET}"
"""What stands in the columns that are not asked about, so that one can see if they are."""


def question_of_text(task: Task, prompt: str, given: Mapping[str, str] | None = None) -> Question:
    """Ask the task's own question about a text: `Summarize the text.` above a document, say.

    The text stands in whichever one column the task turns into its question. A task that takes
    whole conversations (`chat`) has none, and the text is the user's message as it is.

    Args:
        given: columns whose text is known, where the question needs more than one.

    Raises:
        UsageError: the prompt is empty, a given column is none of the task's, or the question needs
            several columns that nobody gave.
    """
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint="peftkit generate RUN 'a text'")
    given = given or {}
    _check_given(task, given)
    is_understood = False
    asked = []
    for column in task.columns:
        if column in given:
            continue
        row: dict[str, Any] = {}
        for other in task.columns:
            stand_in = "" if other in task.optional else STAND_IN
            put(row, other, given.get(other, prompt if other == column else stand_in))
        try:
            question = task.question(row)
        except DataError:
            continue
        is_understood = True
        if prompt.strip() not in _words(question):
            continue
        if STAND_IN not in _words(question):
            return question
        asked.append(column)
    if is_understood:
        raise UsageError(
            "this run's task asks about several columns at once:"
            f" {', '.join(asked or task.columns)}",
            hint=f"--column {asked[-1] if asked else 'NAME'}=TEXT, or @FILE; or rows: --file"
            " ROWS.jsonl",
        )
    return Question(messages=({"role": "user", "content": prompt},))


def _check_given(task: Task, given: Mapping[str, str]) -> None:
    for name in given:
        if name not in task.columns:
            raise UsageError(
                f"this run's task reads no column {name!r}",
                hint=f"one of {', '.join(task.columns)}",
            )


def question_of_row(task: Task, row: Mapping[str, Any]) -> Question:
    """Ask what the task asks about a row; the answer's column may be missing or null.

    A row without any of the task's columns may hold a `prompt`, which is a text as for
    `question_of_text`, or `messages` that end with the user's.

    Raises:
        DataError: a column of the question is missing, or its value cannot be used.
    """
    if not any(_has(row, column) for column in task.columns):
        if isinstance(row.get("prompt"), str):
            return question_of_text(task, row["prompt"])
        if "messages" not in row:
            raise DataError(
                f"the row has none of {', '.join(task.columns)}, prompt or messages;"
                f" it has {', '.join(row) or 'nothing'}"
            )
    if "messages" in row and _ends_with_question(row["messages"]):
        messages = read_messages(row["messages"], "messages")
        return Question(messages=messages, tools=read_tools(row.get("tools"), "tools"))
    filled = dict(row)
    needed = [column for column in task.columns if column not in task.optional]
    missing = [column for column in needed if not _has(row, column)]
    stand_ins = {column: f"{STAND_IN}{column}{STAND_IN}" for column in missing}
    for column, stand_in in stand_ins.items():
        put(filled, column, stand_in)
    question = task.question(filled)
    needed = [column for column in missing if stand_ins[column] in _words(question)]
    if needed:
        raise DataError(f"the row has no {' and no '.join(needed)}, which the question needs")
    return question


ANSWERS = ("generated", "completion", "response", "answer", "output")
"""Columns in which a row's answer is looked for, the one that `generate` itself writes first."""


def answered_of_row(task: Task, row: Mapping[str, Any]) -> Question:
    """Return a row's question with its answer behind it, to be judged.

    The answer is that of a column in `ANSWERS`, or the task's own: of a pair, the better one. A
    row may also hold whole `messages` that end with the assistant's.

    Raises:
        DataError: the row has no question or no answer.
    """
    if row.get("messages") and not _ends_with_question(row["messages"]):
        return Question(messages=read_messages(row["messages"], "messages"))
    asked = question_of_row(task, row)
    named = next((row[name] for name in ANSWERS if isinstance(row.get(name), str)), None)
    answer = task.example(row).answer if named is None else named
    return Question(messages=(*asked.messages, {"role": "assistant", "content": answer}))


def _words(question: Question) -> str:
    messages = (message["content"] for message in question.messages)
    return question.text + "\n".join((*messages, *question.texts))


def _has(row: Mapping[str, Any], column: str) -> bool:
    """Tell whether a column, or a path into a nested one, holds anything."""
    if row.get(column) not in (None, ""):
        return True
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value not in (None, "")


def _ends_with_question(value: Any) -> bool:
    try:
        return read_messages(value, "messages")[-1]["role"] in ("user", "tool")
    except DataError:
        return False
