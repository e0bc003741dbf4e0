"""A method that says only what it must is plain supervised training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from transformers import Trainer

from peftkit.errors import UsageError
from peftkit.plugins import CAUSAL_LM, Method, Point, Text


class Plain(Method):
    Config = "transformers:TrainingArguments"
    kind = CAUSAL_LM
    examples = (Text,)

    def encode(self, examples, tokenizer):  # noqa: ARG002
        return [[{"input_ids": [1, 2], "labels": [-100, 2]}] for _ in examples]


class Scored(Plain):
    def evaluator(self, scoring):
        return f"one of its own for {scoring}"


def test_an_evaluator_of_its_own_is_known_without_making_it() -> None:
    assert Scored(None).has_evaluator


def test_the_defaults_are_those_of_a_plain_trainer() -> None:
    method = Plain(SimpleNamespace(max_length=3, use_cpu=True, label_smoothing_factor=0.0))
    assert method.trainer_class is Trainer
    assert (method.max_length, method.max_target_length, method.source_limit) == (3, None, None)
    assert method.columns(Point(2, 5)) == {"input_ids": (2, 5), "labels": (2, 5)}
    assert method.loss() is not None
    assert method.optimizer(None) is None
    found = (method.longest_row, method.padding_multiple, method.offloads_activations)
    assert found == (3, 1, False)
    assert method.lengths(Dataset.from_dict({"input_ids": [[1, 2], [3]]})) == [2, 1]
    assert not method.has_evaluator
    with pytest.raises(UsageError, match="the method Plain trains no tokenizer"):
        method.train_tokenizer([], vocab_size=300, max_length=8)


def test_a_trainer_with_a_loss_of_its_own_is_not_taken_for_a_plain_one() -> None:
    class Own(Trainer):
        def compute_loss(self, *_: Any, **__: Any) -> None: ...

    class Preferring(Plain):
        trainer_class = Own

    assert Preferring(SimpleNamespace(label_smoothing_factor=0.0)).loss() is None
