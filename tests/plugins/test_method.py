"""A method that says only what it must is plain supervised training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PrinterCallback, Trainer

from peftkit.errors import UsageError
from peftkit.plugins import CAUSAL_LM, Method, Point, Text, Training, make_trainer


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


class Recorded:
    def __init__(self, **given: Any) -> None:
        self.given, self.removed = given, []
        given["model"].to(torch.bfloat16)

    def remove_callback(self, callback: type) -> None:
        self.removed.append(callback)


def parts(folder: Path) -> Training:
    given: Any = (torch.nn.Linear(2, 2), "a tokenizer", "rows", None, ("one",))
    return Training(*given, folder)


def test_the_methods_arguments_stay_as_they_are(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(output_dir="a name", seed=3)
    given = parts(tmp_path)
    made: Any = make_trainer(Recorded, config, given, data_collator="a collator")
    args = made.given.pop("args")
    assert (args.output_dir, args.seed, config.output_dir) == (str(tmp_path), 3, "a name")
    assert made.given == {
        "train_dataset": "rows", "eval_dataset": None, "callbacks": ["one"], "model": given.model,
        "processing_class": "a tokenizer", "data_collator": "a collator",
    }  # fmt: skip
    assert made.removed == [PrinterCallback]


def test_what_is_trained_keeps_its_dtype_where_a_trainer_recasts_it(tmp_path: Path) -> None:
    given = parts(tmp_path)
    given.model.bias.requires_grad_(False)
    values = given.model.weight.detach().clone()
    make_trainer(Recorded, SimpleNamespace(), given)
    assert torch.equal(given.model.weight, values)
    assert given.model.bias.dtype == torch.bfloat16


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
