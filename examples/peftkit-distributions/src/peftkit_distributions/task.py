"""Say in one line what a distribution is for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Task

_WORD = re.compile(r"[a-z0-9]+")
_MARKUP = re.compile(r"^\s*([#=\-*`~|>.]|\[!|!\[|<|$)")


@dataclass(frozen=True)
class Config:
    """Say which columns hold what."""

    description: str = "description"
    """Column of the long description."""
    summary: str = "summary"
    """Column of the line that the model learns to write."""
    question: str = "What is this package for? Answer in one line."
    """What stands above the description."""


class OneLiner(Task):
    """Turn a long description into a question and its one-line summary into the answer."""

    Config = Config
    headline = "word_f1"
    makes = (Conversation,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the two columns."""
        return (self.config.description, self.config.summary)

    def example(self, row: Mapping[str, Any]) -> Conversation:
        """Make one question and answer.

        Raises:
            DataError: a column is missing, null or empty.
        """
        description, summary = (self._text(row, column) for column in self.columns)
        return Conversation(
            (
                {"role": "user", "content": f"{self.config.question}\n\n{description}"},
                {"role": "assistant", "content": " ".join(summary.split())},
            )
        )

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score by the words shared with the reference, counted, as F1; the mean of all rows."""
        pairs = zip(predictions, references, strict=True)
        scores = sorted(_word_f1(prediction, reference) for prediction, reference in pairs)
        return {"word_f1": sum(scores) / len(scores) if scores else 0.0}

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Answer with the description's first line of prose."""
        return {"first_line": [_first_line(self._text(r, self.config.description)) for r in rows]}

    def _text(self, row: Mapping[str, Any], column: str) -> str:
        if column not in row:
            raise DataError(f"no column {column!r}", hint=f"the columns are {', '.join(row)}")
        value = row[column]
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{column} is empty")
        return value.strip()


def _word_f1(prediction: str, reference: str) -> float:
    said, wanted = (Counter(_WORD.findall(text.lower())) for text in (prediction, reference))
    shared = sum((said & wanted).values())
    return 2 * shared / (sum(said.values()) + sum(wanted.values())) if shared else 0.0


def _first_line(description: str) -> str:
    lines = description.splitlines()
    prose = (line.strip() for line in lines if not _MARKUP.match(line))
    return next(prose, lines[0].strip())
