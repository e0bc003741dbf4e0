"""Small recipes that train for real, in this process, and what their runs left behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console

from peftkit.errors import StoppedError
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Recipe
from peftkit.run import run
from peftkit.rundir.paths import RunDir, write_json

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


def write_recipe(
    file: Path,
    base: Path,
    rows: Path,
    *,
    sft: dict[str, Any],
    lora: dict[str, Any] | None = None,
    evaluate: bool = False,
    **sections: Any,
) -> Path:
    """Write a recipe as JSON, which YAML reads; sections replace or add to the usual ones."""
    recipe = {
        "name": "small",
        "model": {"path": str(base), "dtype": "float32"},
        "data": {
            "source": {"json": {"files": {"train": str(rows), "test": str(rows)}}},
            "splits": {"train": "train", "test": "test"},
            "task": {"summarize": {"document": "document", "summary": "summary"}},
        },
        "adapter": {"lora": lora or LORA},
        "method": {"sft": sft},
        "evaluate": {"split": "test", "limit": 2} if evaluate else False,
        **sections,
    }
    file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return file


def train(recipe: Path, out: Path, *overrides: str) -> RunDir:
    """Run a recipe without a word."""
    loaded = load_recipe(recipe, overrides)
    with planned_only_within_a_budget(loaded):
        return run(loaded, out=out, console=Console(quiet=True))


@contextmanager
def planned_only_within_a_budget(recipe: Recipe) -> Iterator[None]:
    """Leave the plan out where nothing is held against it: it takes as long as a tiny training."""
    if recipe.memory.budget_bytes is not None:
        yield
        return
    left_out = (None, "left out in this test")
    with (
        patch("peftkit.memory.planner.plan_run", return_value=left_out),
        patch("peftkit.run.apart", lambda do: do()),  # another process would not know of this
    ):
        yield


def losses(run_dir: RunDir) -> list[float]:
    """Return the training losses in the order of their steps."""
    lines = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def sha256(run_dir: RunDir) -> str:
    """Return the hash of the adapter's weights."""
    weights = run_dir.adapter / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Make the kernel refuse writes beyond a size, as a full disk does."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)


class SignalAt(io.StringIO):
    """Be a console's file that sends this process a signal when a line begins with some text."""

    def __init__(self, line: str, number: int) -> None:
        super().__init__()
        self._line, self._number = line, number

    def write(self, text: str) -> int:
        if text.startswith(self._line):
            self._line = "\0"
            self.act()
        return super().write(text)

    def act(self) -> None:
        """Do what is to happen at the line."""
        os.kill(os.getpid(), self._number)


def train_until(recipe: Path, out: Path, line: str, number: int) -> tuple[StoppedError, str]:
    """Run a recipe until a printed line, send a signal there, and return how that ended."""
    file, loaded = SignalAt(line, number), load_recipe(recipe)
    with pytest.raises(StoppedError) as caught, planned_only_within_a_budget(loaded):
        run(loaded, out=out, console=Console(file=file, width=200))
    return caught.value, file.getvalue()


def cut_back(run_dir: RunDir, *, step: int) -> None:
    """Make a run what a kill right after this step's checkpoint would have left."""
    shutil.rmtree(run_dir.adapter, ignore_errors=True)
    for file in (run_dir.measured, run_dir.scores, run_dir.samples, run_dir.report):
        file.unlink(missing_ok=True)
    for folder in run_dir.checkpoints.iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    status = run_dir.read_json(run_dir.status)
    write_json(run_dir.status, {**status, "state": "running", "exit_code": None})
