"""Predict a number of a text, or of a pair of texts, e.g. how alike two sentences are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins import Example, Question, Rated, Task
from peftkit.sources.columns import describe_kind, read_asked_text
from peftkit.tasks.number_metrics import correlations, mean_squared_error


@dataclass(frozen=True)
class RegressConfig:
    """Say which columns hold what."""

    text: str = "text"
    """Column of the text."""
    second: str | None = None
    """Column of a second text, where a pair has the number, e.g. how alike two sentences are."""
    label: str = "label"
    """Column of the number."""


class Regress(Task):
    """Read a text or a pair, and predict a number."""

    Config: ClassVar[type | str] = RegressConfig
    headline: ClassVar[str] = "pearson"
    makes: ClassVar[tuple[type[Example], ...]] = (Rated,)
    is_regression: ClassVar[bool] = True

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.text, self.config.second, self.config.label)
        return tuple(column for column in named if column)

    @property
    def label_column(self) -> str:
        """Name the column that holds the number."""
        config: RegressConfig = self.config
        return config.label

    @property
    def document(self) -> str:
        """Name the column that may be shortened."""
        config: RegressConfig = self.config
        return config.text

    def example(self, row: Mapping[str, Any]) -> Rated:
        """Make one example of one row.

        Raises:
            DataError: a text is null, empty or no text; the number is none, or not finite.
        """
        return Rated(self._texts(row), read_number(row, self.config.label))

    def question(self, row: Mapping[str, Any]) -> Question:
        """Ask a row without its number."""
        return Question(texts=self._texts(row))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score numbers: Pearson's and Spearman's correlation, and the mean squared error."""
        return {
            **correlations(predictions, references),
            **mean_squared_error(predictions, references),
        }

    def metric_notes(self) -> tuple[str, ...]:
        """Say what a constant answer gets."""
        return ("A correlation with an answer that is always the same counts as 0.",)

    def _texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        columns = (self.config.text, self.config.second)
        return tuple(read_asked_text(row, column) for column in columns if column)


def read_number(row: Mapping[str, Any], column: str) -> float:
    """Return a row's number; a cell of a CSV file holds it as text.

    Raises:
        DataError: it is null, no number, or not finite.
    """
    value = row.get(column)
    if value is None:
        raise EmptyValueError(f"{column} is null")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"{column} is {describe_kind(value)}, not a number")
    try:
        number = float(value)
    except ValueError:
        raise DataError(f"{column} is text that is no number") from None
    if math.isnan(number):
        raise EmptyValueError(f"{column} is nan, which stands for no number")
    if not math.isfinite(number):
        raise DataError(f"{column} is no finite number")
    return number
