"""Find the answer to a question in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins import Example, Question, Span, Spans, Task
from peftkit.sources.columns import describe_kind, look_up, read_text
from peftkit.tasks.squad_metrics import squad_scores

SHOWN_CHARS = 30
"""Of an answer, or of what stands in its place, in a refusal."""


@dataclass(frozen=True)
class QuestionAnsweringConfig:
    """Say which columns hold what."""

    question: str = "question"
    """Column of the question."""
    context: str = "context"
    """Column of the text that holds the answer."""
    answers: str = "answers"
    """Column of the answers: `{text: [...], answer_start: [...]}` as SQuAD's, a list of `{text,
    answer_start}`, or a text, whose first character `answer_start` says. The first is trained; each
    of them is right when answers are scored."""
    answer_start: str | None = None
    """Column of the answer's first character in the context, where `answers` holds a text."""
    search: bool = False
    """Look for an answer that has no place, or a wrong one: the nearest place of its text, the
    first one without any."""
    version_2_with_negative: bool = False
    """Whether a context may leave its question without an answer, as in SQuAD 2.0: the list is
    empty then. Scores follow that version's rules, and a model may find none."""


class QuestionAnswering(Task):
    """Read a question and a text, and give the stretch of the text that answers."""

    Config: ClassVar[type | str] = QuestionAnsweringConfig
    headline: ClassVar[str] = "f1"
    makes: ClassVar[tuple[type[Example], ...]] = (Spans,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        config: QuestionAnsweringConfig = self.config
        named = (config.question, config.context, config.answers, config.answer_start)
        return tuple(column for column in named if column)

    @property
    def has_unanswerable(self) -> bool:
        """Tell whether a context may leave its question without an answer."""
        return bool(self.config.version_2_with_negative)

    def example(self, row: Mapping[str, Any]) -> Spans:
        """Make one example of one row.

        Raises:
            DataError: question or context is null, empty or no text; an answer is missing, empty,
                or not where it should be in the context.
        """
        asks, context = self.question(row).texts
        spans = tuple(self._place(text, start, context) for text, start in self._answers(row))
        if not spans and not self.has_unanswerable:
            raise EmptyValueError(
                f"{self.config.answers} holds no answer: version_2_with_negative: true says that"
                " a question may have none"
            )
        return Spans(asks, context, spans)

    def question(self, row: Mapping[str, Any]) -> Question:
        """Return question and context; the answers may be missing."""
        asks = read_text(row, self.config.question).strip()
        return Question(texts=(asks, read_text(row, self.config.context)))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score answers: exact match and F1 of words in 0..1, the best over all right answers."""
        return squad_scores(predictions, references, version_2=self.has_unanswerable)

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        version = "2.0" if self.has_unanswerable else "1.1"
        return (
            f"Exact match and F1 are those of SQuAD {version}'s own script, in 0..1: without case,"
            " punctuation and articles, the best over all right answers.",
        )

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Answer with what follows the question's rarest word in the context, or with nothing."""
        pairs = [self.question(row).texts for row in rows]
        found = {"next_words": [next_words(asks, context) for asks, context in pairs]}
        return {**found, "no_answer": [""] * len(rows)} if self.has_unanswerable else found

    def _answers(self, row: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
        """Give each answer's text with its place, None where the row has none."""
        config: QuestionAnsweringConfig = self.config
        value = look_up(row, config.answers)
        if config.answer_start is not None:
            starts: Any = look_up(row, config.answer_start)
            value = {"text": value, "answer_start": starts}
        if value is None or value == "":
            return
        yield from _pairs(value, config.answers)

    def _place(self, text: str, start: int | None, context: str) -> Span:
        """Return an answer's place in the context, without whitespace at its ends.

        Raises:
            DataError: it does not stand there; says what does, and where the text is.
        """
        if not text.strip():
            raise EmptyValueError(f"{self.config.answers} holds an empty answer")
        if start is None or context[max(start, 0) :][: len(text)] != text or start < 0:
            start = self._search(text, start, context)
        return Span(text.strip(), start + len(text) - len(text.lstrip()))

    def _search(self, text: str, start: int | None, context: str) -> int:
        places = [match.start() for match in re.finditer(f"(?={re.escape(text)})", context)]
        if places and self.config.search:
            return min(places, key=lambda at: abs(at - (start or 0)))
        answer = repr(_short(text))
        if not places:
            raise DataError(f"the answer {answer} stands nowhere in its {self.config.context}")
        where = f"it stands at {places[0]}; search: true looks for it"
        if start is None:
            raise DataError(f"the answer {answer} has no answer_start: {where}")
        found = _short(context[max(start, 0) :][: len(text)])
        raise DataError(f"the answer {answer} is not at answer_start {start} ({found!r}): {where}")


def _pairs(value: Any, column: str) -> Iterator[tuple[str, int | None]]:
    """Give texts and places of whatever shape a column of answers has.

    Raises:
        DataError: it has none of the shapes.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
        if texts is None:
            texts, starts = [], []
        if not isinstance(texts, list) or not isinstance(starts, list | None):
            raise DataError(f"{column} is no {{text: [...], answer_start: [...]}}")
        starts = [None] * len(texts) if starts is None else starts
        if len(texts) != len(starts):
            raise DataError(f"{column} has {len(texts)} texts and {len(starts)} answer_starts")
        value = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        raise DataError(f"{column} is {describe_kind(value)}, not answers")
    for one in value:
        answer = {"text": one} if isinstance(one, str) else one
        text = answer.get("text") if isinstance(answer, Mapping) else None
        if not isinstance(text, str):
            raise DataError(f"{column} holds {describe_kind(one)}, not an answer with its text")
        start = answer.get("answer_start")
        if isinstance(start, bool) or not isinstance(start, int | None):
            raise DataError(f"answer_start is {describe_kind(start)}, not a whole number")
        yield text, start


NEXT_WORDS = 3
_WORD = re.compile(r"\w+")


def next_words(asks: str, context: str) -> str:
    """Return the few words that follow the question's rarest word in the context.

    The baseline must not be a straw man: where an answer stands beside what is asked about, it is
    right. Of words that are as rare the longest counts; a context without any of them gives its
    first words.
    """
    words = [match.group().lower() for match in _WORD.finditer(context)]
    ends = [match.end() for match in _WORD.finditer(context)]
    known = {word for word in map(str.lower, _WORD.findall(asks)) if word in words}
    start = 0
    if known:
        rarest = min(known, key=lambda word: (words.count(word), -len(word), word))
        start = ends[words.index(rarest)]
    following = [match.group() for match in _WORD.finditer(context, start)]
    return " ".join(following[:NEXT_WORDS])


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."
