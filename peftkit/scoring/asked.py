"""Ask as training did where a text is too long: with its document shortened, if rows' were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError, UsageError
from peftkit.plugins.evaluation import Answerer, Shortened
from peftkit.plugins.examples import Question
from peftkit.preprocessing.too_long import shorten, with_text
from peftkit.scoring.prompts import question_of_row, question_of_text
from peftkit.sources.columns import look_up
from peftkit.sources.formats import rendering_for, system_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins import Task


def ask_text(answerer: Answerer, prompt: str, given: Mapping[str, str] | None = None) -> Question:
    """Ask the task's own question about a text; see `question_of_text`.

    Raises:
        UsageError: the prompt is empty, or the question needs columns that nobody gave.
    """
    given = given or {}
    shortened = answerer.shortened
    if shortened is None or shortened.column not in given:
        return _fit(answerer, prompt, lambda text: question_of_text(answerer.task, text, given))

    def ask(text: str) -> Question:
        return question_of_text(answerer.task, prompt, {**given, shortened.column: text})

    return _fit(answerer, given[shortened.column], ask)


def ask_row(answerer: Answerer, row: Mapping[str, Any]) -> Question:
    """Ask what the task asks about a row; see `question_of_row`.

    Raises:
        DataError: a column of the question is missing, or its value cannot be used.
    """
    shortened = answerer.shortened
    text = look_up(row, shortened.column) if shortened else None

    def ask(row: Mapping[str, Any]) -> Question:
        asked = question_of_row(answerer.task, row)
        has_own = bool(system_columns(answerer.rendering))
        return asked.rendered(rendering_for(answerer.rendering, row)) if has_own else asked

    if shortened is None or not isinstance(text, str):
        return ask(row)
    column = shortened.column
    return _fit(answerer, text, lambda text: ask(with_text(row, column, text)))


def ask_again(  # noqa: PLR0913
    task: Task,
    row: Mapping[str, Any],
    question: Question,
    excess: Callable[[Question], int],
    *,
    shortened: Shortened,
    tokenizer: PreTrainedTokenizerBase,
) -> Question:
    """Return a question about a row, or about less of its document where that is too long.

    Args:
        excess: returns by how many tokens one is too long.
    """
    if excess(question) <= 0:
        return question
    column, text = shortened.column, look_up(row, shortened.column)

    def ask(text: str) -> Question:
        return replace(task.question(with_text(row, column, text)), rendering=question.rendering)

    rest = _shorter(str(text), ask, excess, tokenizer, shortened.keep)
    return question if rest is None else rest


def _fit(answerer: Answerer, document: str, ask: Callable[[str], Question]) -> Question:
    """Ask about a document, or about as much of it as leaves room."""
    question, shortened = ask(document), answerer.shortened
    if shortened is None or answerer.excess(question) <= 0:
        return question
    rest = _shorter(document, ask, answerer.excess, answerer.tokenizer, shortened.keep)
    return question if rest is None else replace(rest, is_shortened=True)


def _shorter(
    document: str,
    ask: Callable[[str], Question],
    excess: Callable[[Question], int],
    tokenizer: PreTrainedTokenizerBase,
    keep: str,
) -> Question | None:
    """Ask about as much of a document as is not too long; None where nothing of it can stay."""

    def measured(places: Sequence[int], texts: Sequence[str]) -> list[int]:
        del places
        return [_excess_of(text, ask, excess) for text in texts]

    (rest,) = shorten([document], measured, tokenizer, keep=keep)
    return None if rest is None else ask(rest)


def _excess_of(text: str, ask: Callable[[str], Question], excess: Callable[[Question], int]) -> int:
    try:
        return max(excess(ask(text)), 0)
    except (DataError, UsageError):
        return -1
