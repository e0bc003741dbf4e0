"""Numbers are read as they stand, of cells of text too; what is none says why."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.plugins.examples import Rated
from peftkit.tasks.regress import Regress, RegressConfig
from peftkit.testing import check_task


def test_the_conformance_checks_hold() -> None:
    rows = [{"a": "sort", "b": "keys", "y": "1.5"}, {"a": "read", "b": "rows", "y": 4}]
    best = check_task(Regress, {"text": "a", "second": "b", "label": "y"}, rows)
    assert best == {"pearson": pytest.approx(1), "spearman": pytest.approx(1), "mse": 0}


@pytest.mark.parametrize(("value", "number"), [(3, 3.0), ("0.25", 0.25), (" -1e2 ", -100.0)])
def test_a_number_may_stand_as_text(value, number: float) -> None:
    example = Regress(RegressConfig()).example({"text": "sort", "label": value})
    assert example == Rated(("sort",), number)
    assert float(example.reference) == number


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "null"), (True, "true/false"), ("high", "no number"), ("nan", "stands for no number"),
     (float("inf"), "no finite number"), (["a"], "a list")],
)  # fmt: skip
def test_what_is_no_number_says_why(value, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Regress(RegressConfig()).example({"text": "sort", "label": value})
