"""Labels are read as they stand; what cannot be one is refused."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.plugins.examples import Labeled
from peftkit.tasks.classify import Classify, ClassifyConfig
from peftkit.testing import check_task


def test_the_conformance_checks_hold() -> None:
    rows = [{"a": "sort keys", "b": "keys", "y": "yes"}, {"a": "read", "b": "rows", "y": "no"}]
    best = check_task(Classify, {"text": "a", "second": "b", "label": "y", "positive": "yes"}, rows)
    assert best == {"accuracy": 1.0, "macro_f1": 1.0, "f1": 1.0, "matthews": 1.0}


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("spam", "spam"),
        (" ham ", "ham"),
        (3, "3"),
        (True, "true"),
        (False, "false"),
        (2.0, "2"),
        ("①", "①"),
        ("none", "none"),
        ("NA", "NA"),
    ],
)
def test_a_label_is_a_name_or_a_whole_number(value, label: str) -> None:
    example = Classify(ClassifyConfig()).example({"text": "sort", "label": value})
    assert example == Labeled(("sort",), label)
    assert example.reference == label


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.5, "the task regress"),
        (None, "null"),
        ("", "empty"),
        (["a"], "not a label"),
        (float("nan"), "null"),
        ("nan", "stands for no label"),
        ("NULL", "stands for no label"),
    ],
)
def test_what_is_no_label_says_why(value, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Classify(ClassifyConfig()).example({"text": "sort", "label": value})


@pytest.mark.parametrize("text", ["nan", " NULL ", "<NA>"])
def test_a_text_that_stands_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="which stands for no text"):
        Classify(ClassifyConfig()).example({"text": text, "label": "a"})
