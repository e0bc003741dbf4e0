"""A method's own evaluator and answerer come first, then those of its kind of model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from peftkit.errors import DataError, UsageError
from peftkit.methods.classify import Classify
from peftkit.methods.sft import SFT
from peftkit.plugins import (
    CAUSAL_LM,
    PRETRAINING,
    SEQUENCE_CLASSIFICATION,
    Answerer,
    Contestant,
    Evaluator,
    Labeled,
    Method,
    Reply,
    Text,
)
from peftkit.recipe.schema import DataSection, EvaluateSection
from peftkit.scoring.by_kind import ANSWERERS, EVALUATORS, answerer_for, evaluator_for
from peftkit.scoring.classifier import LabelAnswerer, LabelEvaluator

ROWS = [[{"input_ids": [1, 2], "labels": 0, "length": 9}]]
MODEL: Any = SimpleNamespace(config=SimpleNamespace(id2label={0: "a", 1: "b"}))


class Plain(Method):
    Config = None
    kind = PRETRAINING
    examples = (Text,)
    max_length = None
    encoded: Any = ROWS

    def encode(self, examples, tokenizer):  # noqa: ARG002
        return self.encoded


class Own(Evaluator):
    def take(self, model, name: str) -> Contestant:  # noqa: ARG002
        return Contestant({})


class Echo(Answerer):
    columns = ("said",)

    def reply(self, question, write, *, seed: int = 0) -> Reply:  # noqa: ARG002
        return Reply(question.text)

    def reply_many(self, questions: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
        return ({"said": question.text} for question in questions)


class WithOwn(Plain):
    kind = SEQUENCE_CLASSIFICATION

    def evaluator(self, scoring):
        return Own(scoring)

    def answerer(self, asking):
        return Echo(asking)


def built(method: Method) -> Any:
    scoring = replace(EvaluateSection(), batch_size=7, generation={"top_k": 3})
    recipe = SimpleNamespace(
        method=SimpleNamespace(name="mine"), scoring=scoring, data=DataSection()
    )
    task = SimpleNamespace(headline="f1", is_regression=False)
    return SimpleNamespace(method=method, task=task, recipe=recipe)


def test_a_method_s_own_come_first() -> None:
    found = evaluator_for(built(WithOwn()), MODEL, "a tokenizer", [Text("a")])
    assert type(found) is Own
    assert (found.headline, found.scoring.batch_size) == ("f1", 7)
    assert found.scoring.rows == [[{"input_ids": [1, 2], "labels": 0}]]
    answerer = answerer_for(built(WithOwn()), lambda: MODEL, "a tokenizer", options={})
    assert type(answerer) is Echo
    assert answerer.model is MODEL


def test_a_kind_has_its_own_otherwise() -> None:
    answers = {CAUSAL_LM.answers, Classify.kind.answers, "numbers"}
    assert set(EVALUATORS) == set(ANSWERERS) == answers
    assert SFT.kind.answers == "text"
    method = Plain()
    method.kind = SEQUENCE_CLASSIFICATION
    found = evaluator_for(built(method), MODEL, "a tokenizer", [Labeled(("a",), "b")])
    assert type(found) is LabelEvaluator
    assert type(answerer_for(built(method), lambda: MODEL, "x", options={})) is LabelAnswerer


def test_what_has_neither_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="'mine' trains a model of AutoModelForPreTraining, which"):
        evaluator_for(built(Plain()), MODEL, "a tokenizer", [Text("a")])

    def load() -> Any:
        pytest.fail("loaded")

    with pytest.raises(UsageError, match="does not answer prompts") as caught:
        answerer_for(built(Plain()), load, "a tokenizer", options={})
    assert "its own answerer" in str(caught.value.hint)


def test_an_example_that_cannot_be_encoded_says_why() -> None:
    method = WithOwn()
    method.encoded = [*ROWS, DataError("the template refuses it")]
    with pytest.raises(DataError, match="the template refuses it"):
        evaluator_for(built(method), MODEL, "a tokenizer", [Text("a"), Text("b")])
