"""Answers are compared by the log-probabilities of their tokens."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from preference_fixture import examples, method, tiny_policy

from peftkit.plugins.evaluation import Scoring
from peftkit.scoring.preferences import share_above
from peftkit.tasks.preference import PreferenceConfig, PreferenceTask


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def scoring(one: Any, model: Any, tokenizer: Any, made: list[Any], **generation: Any) -> Scoring:
    rows = one.encode(made, tokenizer)
    task = PreferenceTask(PreferenceConfig())
    return Scoring(task, model, tokenizer, made, rows, None, 4, generation)


def logps(model: Any, sequence: Any) -> float:
    ids, labels = sequence
    tokens = torch.tensor([ids])
    with torch.no_grad():
        scores = model.eval()(tokens).logits.double().log_softmax(-1)[0, :-1]
    picked = scores.gather(1, tokens[0, 1:, None])[:, 0]
    return float(picked[torch.tensor(labels[1:]) >= 0].sum())


def test_margins_are_differences_of_log_probabilities(tokenizer: Any, tiny_model: Path) -> None:
    model, one = tiny_policy(tiny_model, moved=True), method("dpo")
    evaluator = one.evaluator(scoring(one, model, tokenizer, examples()))
    found = evaluator.take(model, "tuned")
    pairs = [one.sequences(row) for (row,) in one.encode(examples(), tokenizer)]
    margins = [logps(model, better) - logps(model, worse) for better, worse in pairs]
    assert found.margins == pytest.approx(margins, rel=1e-5)
    assert found.metrics["margin"] == pytest.approx(sum(margins) / 4, rel=1e-5)
    assert found.metrics["accuracy"] == sum(margin > 0 for margin in margins) / 4
    assert evaluator.row_scores(found) == [float(margin > 0) for margin in margins]
    assert found.texts == () and evaluator.headline == "accuracy"


def test_where_the_recipe_says_how_answers_are_generated_too(
    tokenizer: Any, tiny_model: Path
) -> None:
    model, one = tiny_policy(tiny_model), method("dpo")
    evaluator = one.evaluator(scoring(one, model, tokenizer, examples(), max_new_tokens=3))
    found = evaluator.take(model, "tuned")
    assert {"accuracy", "margin", "rougeL", "perplexity"} == set(found.metrics)
    assert len(found.texts) == 4
    assert list(evaluator.references) == [one.reference for one in examples()]
    assert len(evaluator.row_scores(found)) == 4


def test_verdicts_are_weighed_token_for_token(tokenizer: Any, tiny_model: Path) -> None:
    model, one = tiny_policy(tiny_model, moved=True), method("kto")
    made = examples(judged=True)
    evaluator = one.evaluator(scoring(one, model, tokenizer, made))
    found = evaluator.take(model, "tuned")
    sides: dict[bool, list[float]] = {True: [], False: []}
    for example, (row,) in zip(made, one.encode(made, tokenizer), strict=True):
        (sequence,) = one.sequences(row)
        num = sum(label >= 0 for label in sequence[1])
        sides[example.is_good].append(logps(model, sequence) / num)
    wins = sum(good > bad for good, bad in product(sides[True], sides[False])) / 16
    assert found.metrics["auc"] == pytest.approx(wins)
    margin = sum(sides[True]) / 4 - sum(sides[False]) / 4
    assert found.metrics["margin"] == pytest.approx(margin, rel=1e-5)
    assert evaluator.row_scores(found) == [] and evaluator.headline == "auc"


def test_verdicts_of_one_kind_alone_have_no_score(tokenizer: Any, tiny_model: Path) -> None:
    model, one = tiny_policy(tiny_model), method("kto")
    made = [example for example in examples(judged=True) if example.is_good]
    found = one.evaluator(scoring(one, model, tokenizer, made)).take(model, "tuned")
    assert found.metrics == {"auc": None, "margin": None}


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
)
def test_auc_is_the_share_of_pairs_in_order(ones: list[int], others: list[int]) -> None:
    pairs = list(product(ones, others))
    share = sum((one > other) + 0.5 * (one == other) for one, other in pairs) / len(pairs)
    assert share_above(ones, others) == pytest.approx(share)
