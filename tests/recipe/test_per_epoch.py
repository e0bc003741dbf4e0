"""Evaluations and checkpoints by the epoch become the shares of steps that trainers understand."""

from __future__ import annotations

import math

import pytest

from peftkit.recipe.per_epoch import chosen_per_epoch, per_epoch
from peftkit.recipe.schema import Choice, PerEpochSection
from peftkit.recipe.stated import Stated


def chosen(section: PerEpochSection, **options) -> dict:
    return {one.option: one.value for one in chosen_per_epoch(section, options, 3.0)}


@pytest.mark.parametrize("times", [2, 3, 4, 7])
@pytest.mark.parametrize("epochs", [1, 3])
def test_there_are_so_many_evaluations_in_all(times: int, epochs: int) -> None:
    share = chosen(PerEpochSection(evaluations=times), num_train_epochs=epochs)["eval_steps"]
    for steps in (84, 840, 2520):  # an epoch's, which `times` divides
        total = steps * epochs
        every = math.ceil(total * share)  # as transformers' Trainer reads a share
        assert total // every == times * epochs


def test_once_an_epoch_is_an_epoch() -> None:
    assert chosen(PerEpochSection(evaluations=1, saves=1)) == {
        "eval_strategy": "epoch", "save_strategy": "epoch",
    }  # fmt: skip


def test_what_says_otherwise() -> None:
    def found(section: PerEpochSection, splits: dict[str, str], **options) -> list[str]:
        method = Choice("sft", options)
        stated = Stated(None, None, None, method, None, False, splits, section)
        return [key for key, *_ in per_epoch(stated)]

    both = {"train": "train", "validation": "5%"}
    assert found(PerEpochSection(evaluations=2), both) == []
    assert found(PerEpochSection(evaluations=2), {"train": "train"}) == ["per_epoch.evaluations"]
    assert found(PerEpochSection(saves=2), both, max_steps=10) == ["per_epoch"]
    assert found(PerEpochSection(saves=2), both, save_steps=10) == ["method.sft.save_steps"]
