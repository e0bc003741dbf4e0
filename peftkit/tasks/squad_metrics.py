"""Score answers as SQuAD's own evaluation does: exact match and F1 of words, the best of several.

Source: Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1, and the scripts evaluate-v1.1.py and
evaluate-v2.0.py that published numbers come from.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from peftkit.tasks.metrics import check_pairs

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
    """Lower, take out ASCII punctuation and then the articles, and collapse whitespace."""
    bare = answer.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, answer: str) -> float:
    """Return 1 where both are the same once normalized."""
    return float(normalize(prediction) == normalize(answer))


def f1(prediction: str, answer: str, *, version_2: bool) -> float:
    """Return the F1 of both bags of words.

    Args:
        version_2: whether two answers without words are the same; version 1.1 gives them 0.
    """
    predicted, right = normalize(prediction).split(), normalize(answer).split()
    if version_2 and not (predicted and right):
        return float(predicted == right)
    num_same = sum((Counter(predicted) & Counter(right)).values())
    if not num_same:
        return 0.0
    precision, recall = num_same / len(predicted), num_same / len(right)
    return 2 * precision * recall / (precision + recall)


def squad_scores(
    predictions: Sequence[str], references: Sequence[str], *, version_2: bool
) -> dict[str, float]:
    """Return exact match and F1 in 0..1, and in version 2 of either kind of question too.

    Args:
        references: all right answers of a question, one a line; empty where it has none.
    """
    check_pairs(predictions, references)
    metrics: dict[str, Callable[[str, str], float]] = {
        "exact_match": exact_match,
        "f1": lambda one, other: f1(one, other, version_2=version_2),
    }
    scores = {
        name: [
            max(metric(prediction, answer) for answer in _answers(reference, version_2=version_2))
            for prediction, reference in zip(predictions, references, strict=True)
        ]
        for name, metric in metrics.items()
    }
    whole = {name: sum(values) / len(values) for name, values in scores.items()}
    return {**whole, **dict(_by_kind(scores["f1"], references, version_2=version_2))}


def _answers(reference: str, *, version_2: bool) -> list[str]:
    """Return the right answers; version 2 leaves out those of which no word remains."""
    answers = reference.split("\n")
    if not version_2:
        return answers
    return [answer for answer in answers if normalize(answer)] or [""]


def _by_kind(
    scores: Sequence[float], references: Sequence[str], *, version_2: bool
) -> Iterator[tuple[str, float]]:
    if not version_2:
        return
    kinds = {"has_ans_f1": [bool(r) for r in references], "no_ans_f1": [not r for r in references]}
    for name, chosen in kinds.items():
        kept = [score for score, is_kept in zip(scores, chosen, strict=True) if is_kept]
        if kept and len(kept) < len(scores):
            yield name, sum(kept) / len(kept)
