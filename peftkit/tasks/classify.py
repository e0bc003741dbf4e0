"""Choose one of several labels for a text, or for a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins import Example, Labeled, Task
from peftkit.sources.columns import describe_kind, read_asked_text, stands_for_nothing
from peftkit.tasks.label_metrics import accuracy, f1_of, macro_f1, matthews


@dataclass(frozen=True)
class ClassifyConfig:
    """Say which columns hold what."""

    text: str = "text"
    """Column of the text."""
    second: str | None = None
    """Column of a second text, where a pair has the label, e.g. whether two sentences agree."""
    label: str = "label"
    """Column of the label: a name, a whole number, or true and false."""
    positive: str | None = None
    """Label whose own F1 is reported too, e.g. `spam`."""


class Classify(Task):
    """Read a text or a pair, and name its label."""

    Config: ClassVar[type | str] = ClassifyConfig
    headline: ClassVar[str] = "accuracy"
    makes: ClassVar[tuple[type[Example], ...]] = (Labeled,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.text, self.config.second, self.config.label)
        return tuple(column for column in named if column)

    @property
    def label_column(self) -> str:
        """Name the column that holds the label."""
        config: ClassifyConfig = self.config
        return config.label

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuse a positive label that no row has."""
        positive = self.config.positive
        if positive is not None and positive not in names:
            raise DataError(
                f"data.task.classify.positive: there is no label {positive!r}; the labels are"
                f" {', '.join(map(repr, names))}",
                hint="name one of them, or delete the key",
            )

    @property
    def document(self) -> str:
        """Name the column that may be shortened."""
        config: ClassifyConfig = self.config
        return config.text

    def example(self, row: Mapping[str, Any]) -> Labeled:
        """Make one example of one row.

        Raises:
            DataError: a text is null, empty or no text; the label is null, empty, or a number
                with a fraction.
        """
        texts = [read_asked_text(row, self.config.text)]
        if self.config.second:
            texts.append(read_asked_text(row, self.config.second))
        return Labeled(tuple(texts), self._label(row))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score labels: accuracy and macro F1 in 0..1, Matthews correlation in -1..1.

        Macro F1 is the mean of the F1 of every label that is predicted or right somewhere.
        """
        positive = self.config.positive
        return {
            **accuracy(predictions, references),
            **macro_f1(predictions, references),
            **({"f1": f1_of(positive, predictions, references)} if positive else {}),
            **matthews(predictions, references),
        }

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        positive = self.config.positive
        own = (f"F1 is that of the label {positive!r}.",) if positive else ()
        return (*own, "Macro F1 is the mean of every label's F1, whatever its share of the rows.")

    def _label(self, row: Mapping[str, Any]) -> str:
        name = self.config.label
        value = row.get(name)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value)
        if isinstance(value, float):
            return self._of_float(value)
        if value is None:
            raise EmptyValueError(f"{name} is null, not a label")
        if not isinstance(value, str):
            raise DataError(f"{name} is {describe_kind(value)}, not a label")
        if not value.strip():
            raise EmptyValueError(f"{name} is empty")
        if stands_for_nothing(value):
            raise EmptyValueError(f"{name} is {value.strip()!r}, which stands for no label")
        return value.strip()

    def _of_float(self, value: float) -> str:
        """Read a label that a table with gaps holds as 1.0 in place of 1."""
        if value.is_integer():
            return str(int(value))
        if math.isnan(value):
            raise EmptyValueError(f"{self.config.label} is null")
        raise DataError(
            f"{self.config.label} is a number with a fraction: labels are names or whole numbers;"
            " the task regress predicts numbers"
        )
