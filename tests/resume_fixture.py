"""A run that is cut short and resumed, beside the same run that was never stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tiny
from training_fixture import cut_back, losses, sha256, train, write_recipe

from peftkit.rundir.paths import RunDir

SFT = {
    "learning_rate": 1e-2,
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "max_length": 128,
    "save_steps": 1,
    "save_total_limit": 4,
}


def assert_resumes_exactly(
    base: Path, adapter: dict[str, Any], folder: Path, *, steps: tuple[int, ...] = (2, 4)
) -> RunDir:
    """Train 4 steps; cut copies back to these steps, go on, and compare adapters and losses.

    A copy that is cut back to its last step lacks the adapter only.
    """
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(8))
    recipe = write_recipe(folder / "r.json", base, rows, sft=SFT, adapter=adapter)
    whole = train(recipe, folder / "whole")
    for step in steps:
        part = RunDir(folder / f"from-{step}")
        shutil.copytree(whole.path, part.path)
        cut_back(part, step=step)
        train(recipe, part.path)
        assert losses(part) == losses(whole), step
        assert sha256(part) == sha256(whole), step
    return whole
