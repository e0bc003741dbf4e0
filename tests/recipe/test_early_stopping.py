"""What early stopping decides, and what contradicts it."""

from __future__ import annotations

from typing import Any

import pytest

from peftkit.recipe.early_stopping import best_kept
from peftkit.recipe.schema import Choice
from peftkit.recipe.stated import Stated
from peftkit.recipe.training_contradictions import RULES


def found(splits: dict[str, str], **options: Any) -> list[str]:
    stated = Stated(None, None, None, Choice("sft", options), None, True, splits)
    return [key.rpartition(".")[2] for rule in RULES for key, *_ in rule(stated)]


def test_the_best_checkpoint_is_that_of_an_evaluation() -> None:
    by_steps = {
        one.option: one.value for one in best_kept({"eval_strategy": "steps", "eval_steps": 5})
    }
    assert (by_steps["save_strategy"], by_steps["save_steps"]) == ("steps", 5)
    by_epoch = {one.option: one.value for one in best_kept({})}
    assert (by_epoch["eval_strategy"], by_epoch["save_strategy"]) == ("epoch", "epoch")
    assert by_epoch["load_best_model_at_end"] is True


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, []),
        ({"eval_strategy": "steps", "eval_steps": 5}, []),
        ({"eval_strategy": "steps"}, ["eval_strategy"]),
        ({"eval_strategy": "no"}, ["eval_strategy"]),
        ({"load_best_model_at_end": False}, ["load_best_model_at_end"]),
        ({"save_strategy": "no"}, ["save_strategy"]),
    ],
)
def test_early_stopping(options: dict[str, Any], keys: list[str]) -> None:
    assert found({"train": "train", "validation": "5%"}, **options) == keys


def test_early_stopping_needs_something_to_watch() -> None:
    assert found({"train": "train"}) == ["early_stopping"]
