"""A native trainer gets its own arguments and says nothing itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import PrinterCallback

from peftkit.methods.trainer import make_trainer


class Recorded:
    def __init__(self, **given: Any) -> None:
        self.given, self.removed = given, []

    def remove_callback(self, callback: type) -> None:
        self.removed.append(callback)


def test_the_methods_arguments_stay_as_they_are(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(output_dir="a name", seed=3)
    made: Any = make_trainer(
        Recorded, config, "rows", None, ("one",), output_dir=tmp_path, model="a model"
    )
    args = made.given.pop("args")
    assert (args.output_dir, args.seed, config.output_dir) == (str(tmp_path), 3, "a name")
    assert made.given == {
        "train_dataset": "rows", "eval_dataset": None, "callbacks": ["one"], "model": "a model",
    }  # fmt: skip
    assert made.removed == [PrinterCallback]
