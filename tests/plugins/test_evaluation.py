"""An evaluator asks nothing of a method that only reads, and reports what it does by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from peftkit.plugins import Contestant, Evaluator, Reply, Scoring

TASK: Any = SimpleNamespace(
    headline="exact", score=lambda said, wanted: {"exact": float(said == wanted)}
)


def scoring(**given: Any) -> Scoring:
    model: Any = None
    return Scoring(TASK, model, model, (), (), None, 1, {}, **given)


class Margin(Evaluator):
    def take(self, model: Any, name: str) -> Contestant:  # noqa: ARG002
        return Contestant({"margin": 1.0})


def test_progress_is_named_and_may_be_absent() -> None:
    seen: list[Any] = []
    report = scoring(progress=lambda *at: seen.append(at)).say("base answers")
    assert report is not None
    report(3, 8)
    assert seen == [("base answers", 3, 8)]
    assert scoring().say("base") is None


def test_an_evaluator_without_answers_has_no_row_scores() -> None:
    evaluator = Margin(scoring())
    assert evaluator.row_scores(evaluator.take(None, "base")) == []
    assert (evaluator.references, evaluator.notes, evaluator.scores_base) == ((), (), True)


def test_the_headline_is_the_task_s_unless_an_evaluator_has_its_own() -> None:
    assert Margin(scoring()).headline == "exact"
    assert type("Own", (Margin,), {"headline": "margin"})(scoring()).headline == "margin"


def test_answers_are_scored_row_by_row_as_the_task_scores_them() -> None:
    evaluator = Margin(scoring())
    evaluator.references = ["a", "b"]
    assert evaluator.row_scores(Contestant({}, ("a", "c"))) == [1.0, 0.0]


def test_a_reply_is_its_text_unless_it_has_values() -> None:
    assert Reply("a", ("cut",)).to_json() == {"answer": "a", "notes": ["cut"]}
    assert Reply("a", values={"predicted": "a"}).to_json() == {"predicted": "a"}
