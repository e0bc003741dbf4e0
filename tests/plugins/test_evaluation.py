"""An evaluator reports its progress under the name of what it does."""

from __future__ import annotations

from typing import Any

from peftkit.plugins import Contestant, Evaluator, Scoring


def test_progress_is_named_and_may_be_absent() -> None:
    seen: list[Any] = []
    given: Any = dict.fromkeys(("task", "method", "model", "tokenizer"))
    scoring = Scoring(
        **given, examples=(), batch_size=1, generation={}, progress=lambda *at: seen.append(at)
    )
    report = scoring.say("base answers")
    assert report is not None
    report(3, 8)
    assert seen == [("base answers", 3, 8)]
    assert Scoring(**given, examples=(), batch_size=1, generation={}).say("base") is None


def test_an_evaluator_without_answers_has_no_row_scores() -> None:
    class Margin(Evaluator):
        headline = "margin"

        def take(self, model: Any, name: str) -> Contestant:  # noqa: ARG002
            return Contestant({"margin": 1.0})

    evaluator = Margin()
    assert evaluator.row_scores(evaluator.take(None, "base")) == []
    assert (evaluator.references, evaluator.notes, evaluator.scores_base) == ((), (), True)
