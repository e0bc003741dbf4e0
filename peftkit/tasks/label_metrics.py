"""Score predicted labels, by the formulas themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from peftkit.tasks.metrics import check_pairs


def accuracy(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the share of labels that are right."""
    check_pairs(predictions, references)
    return {"accuracy": _num_right(predictions, references) / len(references)}


def f1_of(label: str, predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the F1 of one label: 2 TP / (2 TP + FP + FN); 0 where it stands nowhere."""
    check_pairs(predictions, references)
    pairs = list(zip(predictions, references, strict=True))
    num_right = sum(one == other == label for one, other in pairs)
    num_named = sum((one == label) + (other == label) for one, other in pairs)
    return 2 * num_right / num_named if num_named else 0.0


def macro_f1(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the mean F1 of all labels that are predicted or right somewhere, of equal weight."""
    check_pairs(predictions, references)
    labels = sorted({*predictions, *references})
    return {
        "macro_f1": sum(f1_of(label, predictions, references) for label in labels) / len(labels)
    }


def matthews(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return Matthews' correlation of any number of labels; 0 where either side has one label only.

    Source: Gorodkin 2004, R_K, equation 8: with s rows, c of them right, and p and t the counts
    of each label predicted and true, (c s - p t) / sqrt((s² - p p) (s² - t t)).
    """
    check_pairs(predictions, references)
    predicted, true = Counter(predictions), Counter(references)
    num_rows, num_right = len(references), _num_right(predictions, references)
    covariance = num_right * num_rows - sum(predicted[label] * n for label, n in true.items())
    spread = num_rows**2 - sum(n * n for n in predicted.values())
    true_spread = num_rows**2 - sum(n * n for n in true.values())
    if not spread or not true_spread:
        return {"matthews": 0.0}
    return {"matthews": covariance / math.sqrt(spread * true_spread)}


def _num_right(predictions: Sequence[str], references: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(predictions, references, strict=True))
