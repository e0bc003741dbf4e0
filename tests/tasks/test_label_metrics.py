"""Scores of labels are scikit-learn's, and those that published examples give."""

from __future__ import annotations

import random

import pytest

from peftkit.errors import DataError
from peftkit.tasks.label_metrics import accuracy, f1_of, macro_f1, matthews


def test_known_values() -> None:
    # 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
    references = list("yyyyynnnnn")
    predictions = list("yyynnynnnn")
    assert accuracy(predictions, references) == {"accuracy": 0.7}
    assert f1_of("y", predictions, references) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert macro_f1(predictions, references)["macro_f1"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    expected = (3 * 4 - 1 * 2) / (4 * 5 * 5 * 6) ** 0.5
    assert matthews(predictions, references)["matthews"] == pytest.approx(expected)


def test_one_label_alone_correlates_with_nothing() -> None:
    assert matthews(["a", "a"], ["a", "b"]) == {"matthews": 0.0}
    assert matthews(["a", "b"], ["a", "a"]) == {"matthews": 0.0}
    assert f1_of("c", ["a"], ["b"]) == 0.0


@pytest.mark.parametrize("score", [accuracy, macro_f1, matthews])
def test_nothing_cannot_be_scored(score) -> None:
    with pytest.raises(DataError, match="cannot score 0 answers"):
        score([], [])


def test_they_are_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    source = random.Random(0)
    for labels in ("ab", "abc", "abcdefg"):
        references = [source.choice(labels) for _ in range(200)]
        predictions = [
            label if source.random() < 0.6 else source.choice(labels) for label in references
        ]
        ours = {
            **accuracy(predictions, references),
            **macro_f1(predictions, references),
            **matthews(predictions, references),
        }
        assert ours == pytest.approx(
            {
                "accuracy": metrics.accuracy_score(references, predictions),
                "macro_f1": metrics.f1_score(references, predictions, average="macro"),
                "matthews": metrics.matthews_corrcoef(references, predictions),
            }
        )
        assert f1_of("a", predictions, references) == pytest.approx(
            metrics.f1_score(references, predictions, labels=["a"], average=None)[0]
        )
