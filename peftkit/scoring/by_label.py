"""Score each label by itself, and count what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LabelScores:
    """Hold how well one model names each label."""

    labels: tuple[str, ...]
    """By their numbers."""
    precision: tuple[float | None, ...]
    """Share that is right of the rows it gives a label; None where it gives none that label."""
    recall: tuple[float | None, ...]
    """Share that it finds of the rows that have a label; None where no row has it."""
    f1: tuple[float, ...]
    """2 TP / (2 TP + FP + FN); 0 where a label stands nowhere."""
    num_rows: tuple[int, ...]
    num_predicted: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Row: the right label; column: the one predicted."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def score_by_label(
    predictions: Sequence[str], references: Sequence[str], labels: Sequence[str]
) -> LabelScores:
    """Score each label of a model by itself.

    Args:
        labels: all that the model knows, by their numbers.
    """
    pairs = Counter(zip(references, predictions, strict=True))
    confusion = tuple(tuple(pairs[right, found] for found in labels) for right in labels)
    num_rows = tuple(map(sum, confusion))
    num_predicted = tuple(map(sum, zip(*confusion, strict=True)))
    right = [confusion[at][at] for at in range(len(labels))]

    def share(parts: Sequence[int]) -> tuple[float | None, ...]:
        return tuple(a / b if b else None for a, b in zip(right, parts, strict=True))

    named = [rows + found for rows, found in zip(num_rows, num_predicted, strict=True)]
    f1 = tuple(2 * a / b if b else 0.0 for a, b in zip(right, named, strict=True))
    return LabelScores(
        tuple(labels), share(num_predicted), share(num_rows), f1, num_rows, num_predicted, confusion
    )


def label_notes(name: str, scores: LabelScores) -> Iterator[str]:
    """Say what a headline hides: a model that says the same of every row, labels without rows.

    Args:
        name: of the model, at a sentence's beginning.
    """
    given = [label for label, n in zip(scores.labels, scores.num_predicted, strict=True) if n]
    if len(given) == 1 and sum(scores.num_rows) > 1:
        yield f"{name} gives every row the label {given[0]!r}."
    absent = [label for label, n in zip(scores.labels, scores.num_rows, strict=True) if not n]
    if absent:
        shown = ", ".join(map(repr, absent[:10])) + (" ..." if len(absent) > 10 else "")
        yield f"No scored row has the label {shown}, so nothing is known of how well it is found."
