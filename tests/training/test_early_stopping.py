"""Early stopping: when it stops, which checkpoint is kept, and that a resumed run counts on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
import training_fixture

from peftkit.report import render_page
from peftkit.rundir.paths import RunDir


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model: Path) -> Path:
    """Write a recipe whose steps change nothing, so that no evaluation improves on the first."""
    folder = tmp_path_factory.mktemp("stopping")
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(6))
    sft = {
        "learning_rate": 1e-30, "max_steps": 9, "per_device_train_batch_size": 2,
        "logging_steps": 1, "max_length": 64, "eval_strategy": "steps", "eval_steps": 1,
        "weight_decay": 0.01, "neftune_noise_alpha": 5,
    }  # fmt: skip
    splits = {"train": "train", "validation": "test"}
    file = folder / "recipe.json"
    training_fixture.write_recipe(
        file, tiny_model, rows, sft=sft, early_stopping={"patience": 2, "threshold": 0.001}
    )
    made = json.loads(file.read_text())
    made["data"]["splits"] = splits
    file.write_text(json.dumps(made))
    return file


def test_stops_keeps_the_best_and_counts_on_after_a_resume(recipe: Path, tmp_path: Path) -> None:
    run_dir = training_fixture.train(recipe, tmp_path / "run")
    measured = json.loads(run_dir.measured.read_text())
    assert (measured["num_steps"], measured["kept_step"]) == (3, 1)
    page = render_page(run_dir)
    assert "early stopping (patience 2), NEFTune 5, weight decay 0.01" in page
    assert "the weights of step 1 are kept, of 3 trained" in page
    resolved = run_dir.read_resolved()["method"]["sft"]
    assert resolved["load_best_model_at_end"] is True
    assert (resolved["save_strategy"], resolved["save_steps"]) == ("steps", 1)

    part = RunDir(tmp_path / "part")
    shutil.copytree(run_dir.path, part.path)
    training_fixture.cut_back(part, step=2)
    training_fixture.train(recipe, part.path)
    assert training_fixture.losses(part) == training_fixture.losses(run_dir)
    assert training_fixture.sha256(part) == training_fixture.sha256(run_dir)
    assert json.loads(part.measured.read_text())["num_steps"] == 3


FALLING = ("method.sft.learning_rate=0.01", "method.sft.greater_is_better=true")
"""Weights change and the loss falls, which is taken for worse: the first checkpoint is the best."""


@pytest.mark.parametrize("step", [2, 3])
def test_a_moved_run_keeps_the_best_whose_place_was_another(
    recipe: Path, tmp_path: Path, step: int
) -> None:
    overrides = FALLING
    run_dir = training_fixture.train(recipe, tmp_path / "run", *overrides)
    assert json.loads(run_dir.measured.read_text())["kept_step"] == 1
    moved = RunDir(tmp_path / "moved")
    shutil.copytree(run_dir.path, moved.path)
    training_fixture.cut_back(moved, step=step)
    shutil.move(run_dir.path, tmp_path / "gone")
    training_fixture.train(recipe, moved.path, *overrides)
    gone = RunDir(tmp_path / "gone")
    assert training_fixture.sha256(moved) == training_fixture.sha256(gone)
    measured = json.loads(moved.measured.read_text())
    assert (measured["num_steps"], measured["kept_step"]) == (3, 1)


def test_a_best_that_is_lost_is_found_again_from_an_older_checkpoint(
    recipe: Path, tmp_path: Path
) -> None:
    overrides = (*FALLING, "method.sft.save_total_limit=5")
    whole = training_fixture.train(recipe, tmp_path / "run", *overrides)
    part = RunDir(tmp_path / "part")
    shutil.copytree(whole.path, part.path)
    training_fixture.cut_back(part, step=3)
    (part.checkpoints / "step-1" / "adapter_model.safetensors").unlink()
    training_fixture.train(recipe, part.path, *overrides)
    assert training_fixture.sha256(part) == training_fixture.sha256(whole)
