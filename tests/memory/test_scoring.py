"""The prompts that fit are found by planning them, and said where training fits without them."""

from __future__ import annotations

import pytest
from plan_fixture import GIB, linear_plan

from peftkit.memory.evaluation import EvaluationPeak
from peftkit.memory.fake import PlanningError
from peftkit.memory.scoring import batch_size_that_fits, planned_evaluation

BASE, PROMPT = 2 * GIB, GIB // 8


def _prompts(batch_size: int | None) -> EvaluationPeak:
    """Take a base, and for each prompt a little more the more there are."""
    rows = 40 if batch_size is None else batch_size
    return EvaluationPeak(int(BASE + PROMPT * rows**1.2), "prompts", rows, 100, 0)


def _rows(_batch_size: int | None) -> EvaluationPeak:
    return EvaluationPeak(5 * GIB, "rows", 16, 100, 0)


def test_as_many_prompts_as_fit_are_found() -> None:
    made = linear_plan(fixed=BASE, per_token=1, scoring=_prompts)
    limit = 4 * GIB
    rows = batch_size_that_fits(made, 40, limit)
    assert 0.8 * limit < _prompts(rows).num_bytes <= limit
    assert batch_size_that_fits(made, 4, limit) == 4, "which fits already"


def test_where_no_prompt_fits_there_is_none() -> None:
    assert (
        batch_size_that_fits(linear_plan(fixed=BASE, per_token=1, scoring=_prompts), 40, GIB) == 0
    )
    assert batch_size_that_fits(linear_plan(fixed=BASE, per_token=1, scoring=_rows), 40, GIB) == 0


def test_what_cannot_be_planned_is_not_said() -> None:
    def refuse(_batch_size: int | None) -> EvaluationPeak:
        raise PlanningError("no")

    assert planned_evaluation(linear_plan(fixed=BASE, per_token=1, scoring=refuse)) is None
    with pytest.raises(PlanningError):
        assert linear_plan(fixed=BASE, per_token=1, scoring=refuse).evaluation


def test_a_model_that_fails_at_its_scoring_is_planned_without_it(monkeypatch) -> None:
    """As one whose outputs hold no cache."""
    from types import SimpleNamespace

    from peftkit.memory import evaluation, planner

    def fail(*_given: object) -> None:
        raise AttributeError("'CausalLMOutput' object has no attribute 'past_key_values'")

    monkeypatch.setattr(evaluation, "unplanned_scoring", lambda _built: None)
    monkeypatch.setattr(evaluation, "worst_stage", fail)
    rehearsed = SimpleNamespace(sharing=SimpleNamespace(strategy=""))
    built = SimpleNamespace(recipe=SimpleNamespace(evaluate=object()))
    with pytest.raises(PlanningError, match="no attribute 'past_key_values'"):
        planner._score(rehearsed, built, None, None, None)
