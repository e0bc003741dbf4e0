"""Answers are scored as SQuAD's scripts score them."""

from __future__ import annotations

import collections
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.tasks.squad_metrics import normalize, squad_scores

WORDS = ["the", "a", "An", "cat", "Cat.", "theory", "--", "%", "7-11", "", "dogs'", "the-end", "É"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


def plain_f1(prediction: str, answer: str, version_2: bool) -> float:
    """Compute it by counting words in lists, and by precision and recall as fractions."""

    def words(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return [word for word in re.split(r"\s+", re.sub(r"\b(?:a|an|the)\b", " ", kept)) if word]

    one, other = words(prediction), words(answer)
    if version_2 and (not one or not other):
        return 1.0 if one == other else 0.0
    left = collections.Counter(other)
    same = 0
    for word in one:
        if left[word] > 0:
            left[word] -= 1
            same += 1
    return 2 * same / (len(one) + len(other)) if same else 0.0


@given(
    rows=st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1,
                  max_size=6),
    version_2=st.booleans(),
)  # fmt: skip
def test_f1_is_the_mean_of_the_best_over_right_answers(rows, version_2: bool) -> None:
    predictions = [prediction for prediction, _ in rows]
    references = ["\n".join(" ".join(a.split()) for a in answers) for _, answers in rows]
    found = squad_scores(predictions, references, version_2=version_2)
    wanted = [
        max(
            plain_f1(prediction, answer, version_2)
            for answer in (
                [a for a in answers if not version_2 or normalize(a)] or [""]
            )
        )
        for prediction, answers in rows
    ]  # fmt: skip
    assert found["f1"] == pytest.approx(sum(wanted) / len(wanted))


def test_by_hand() -> None:
    predictions = ["The Denver Broncos", "in 1989", "", "gold"]
    references = ["Denver Broncos\nBroncos", "1989", "x", ""]
    found = squad_scores(predictions, references, version_2=True)
    assert found == {
        "exact_match": 0.25,
        "f1": pytest.approx((1 + 2 / 3 + 0 + 0) / 4),
        "has_ans_f1": pytest.approx((1 + 2 / 3 + 0) / 3),
        "no_ans_f1": 0.0,
    }
    assert set(squad_scores(predictions, references, version_2=False)) == {"exact_match", "f1"}


def test_the_versions_differ_where_no_word_remains() -> None:
    assert squad_scores(["the"], ["%"], version_2=False) == {"exact_match": 1.0, "f1": 0.0}
    assert squad_scores(["the"], ["%"], version_2=True) == {"exact_match": 1.0, "f1": 1.0}


def test_articles_inside_words_stay() -> None:
    assert normalize("The theory, an  A-team\nof the 7-11") == "theory ateam of 711"


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError):
        squad_scores([], [], version_2=False)
