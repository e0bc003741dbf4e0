"""A recipe small enough that a tracker's own work is most of its run."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from training_fixture import write_recipe

SFT = {
    "learning_rate": 1e-3,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "max_length": 128,
    "save_strategy": "no",
    "logging_steps": 1,
}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> Path:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(12))
    return write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT, evaluate=True)
