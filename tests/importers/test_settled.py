"""Of what a tool takes together and `check` refuses, the one that counts there is kept."""

from __future__ import annotations

import pytest

from peftkit.importers.settled import settle
from peftkit.plugins.imported import Draft, Fate
from peftkit.plugins.importer import Foreign

HELD = {"train": "train", "validation": "5%"}


@pytest.mark.parametrize(
    ("options", "splits", "left"),
    [
        ({"max_steps": 10, "num_train_epochs": 3}, HELD, {"max_steps": 10}),
        ({"max_steps": -1, "num_train_epochs": 3}, HELD, {"num_train_epochs": 3}),
        ({"lr_scheduler_type": "constant", "warmup_steps": 0.1}, HELD,
         {"lr_scheduler_type": "constant"}),
        ({"eval_strategy": "steps", "eval_steps": 5}, {"train": "train"}, {}),
        ({"eval_steps": 5}, HELD, {}),
        ({"save_strategy": "epoch", "save_steps": 5}, HELD, {"save_strategy": "epoch"}),
        ({"bf16": True, "fp16": True}, HELD, {"bf16": True}),
        ({"eval_strategy": "steps", "eval_steps": 5, "load_best_model_at_end": True}, HELD,
         {"eval_strategy": "steps", "eval_steps": 5, "load_best_model_at_end": True,
          "save_strategy": "steps", "save_steps": 5}),
    ],
)  # fmt: skip
def test_the_one_that_counts_is_kept(options, splits, left):
    draft = Draft(Foreign("c.yaml", dict.fromkeys(options, 1)))
    draft.put("data.splits", splits)
    for name, value in options.items():
        draft.keep(name, f"method.{name}", value)
    settle(draft)
    assert draft.recipe["method"]["sft"] == left
    dropped = [one for one in draft.fates if one.fate is Fate.IMPLIED]
    assert {one.key for one in dropped} == options.keys() - left.keys()
