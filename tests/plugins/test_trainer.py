"""A trainer is made of the method's own arguments, which stay as they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PrinterCallback

from peftkit.plugins import Training, make_trainer


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
