"""Training arguments are judged by what is stated, whichever method states them."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.recipe.schema import Choice
from peftkit.recipe.stated import Stated
from peftkit.recipe.training_contradictions import RULES


def found(splits: dict[str, str] | None, *, stops_early: bool = False, **options: Any) -> list[str]:
    method = Choice("sft", options)
    stated = Stated(None, None, None, method, None, stops_early, splits)
    return [key.rpartition(".")[2] for rule in RULES for key, *_ in rule(stated)]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, []),
        ({"eval_strategy": "epoch"}, ["eval_strategy"]),
        ({"eval_on_start": True}, ["eval_on_start"]),
        ({"save_strategy": "best"}, ["save_strategy"]),
        ({"load_best_model_at_end": True, "eval_strategy": "epoch"},
         ["eval_strategy", "load_best_model_at_end"]),
        ({"packing": True, "max_length": None}, ["max_length"]),
        ({"logging_strategy": "no", "logging_steps": 5}, ["logging_steps"]),
        ({"gradient_checkpointing": True, "activation_checkpointing": False},
         ["gradient_checkpointing"]),
        ({"fp16": True, "use_cpu": True}, ["fp16"]),
    ],
)  # fmt: skip
def test_without_a_validation_split(options: dict[str, Any], keys: list[str]) -> None:
    assert found({"train": "train"}, **options) == keys


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"eval_strategy": "epoch"}, []),
        ({"save_strategy": "best"}, ["save_strategy"]),
        ({"load_best_model_at_end": True}, ["load_best_model_at_end"]),
        ({"load_best_model_at_end": True, "eval_strategy": "steps"}, []),
        ({"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "best"}, []),
    ],
)
def test_with_a_validation_split(options: dict[str, Any], keys: list[str]) -> None:
    assert found({"train": "train", "validation": "5%"}, **options) == keys


def test_splits_that_could_not_be_read_contradict_nothing() -> None:
    assert found(None, eval_strategy="epoch") == []
