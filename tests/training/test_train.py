"""A training is watched, summed up, and is more than its trainer where the adapter needs it."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from training_fixture import (
    cut_back,
    losses,
    planned_only_within_a_budget,
    train,
    write_recipe,
)

from peftkit.errors import UsageError
from peftkit.recipe.load import load_recipe
from peftkit.run import run

SFT = {
    "learning_rate": 1e-2,
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "max_length": 128,
    "logging_steps": 1,
    "save_steps": 2,
    "save_total_limit": 4,
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(8))


def test_measured_sums_up_every_process_of_a_run(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT)
    run_dir = train(recipe, tmp_path / "run")
    whole = json.loads(run_dir.measured.read_text())
    lines = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert whole["final_loss"] == losses(run_dir)[-1]
    assert whole["train_seconds"] == lines[-1]["seconds"]
    assert whole["num_tokens"] == lines[-1]["num_tokens"]
    speed = whole["num_tokens"] / whole["train_seconds"]
    assert whole["tokens_per_second"] == pytest.approx(speed, abs=0.1)
    assert whole["peak_bytes"] == max(line["peak_bytes"] for line in lines)

    cut_back(run_dir, step=2)
    train(recipe, run_dir.path)
    again = json.loads(run_dir.measured.read_text())
    counted = ("num_steps", "num_tokens", "final_loss", "num_trainable", "num_parameters")
    assert {key: again[key] for key in counted} == {key: whole[key] for key in counted}
    assert again["train_seconds"] > lines[1]["seconds"]


def test_validation_rows_are_read_once_where_no_strategy_asks_for_it(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    data = {
        "source": {"json": {"files": {"train": str(rows), "validation": str(rows)}}},
        "splits": {"train": "train", "validation": "validation"},
        "task": {"summarize": {}},
    }
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT, data=data)
    run_dir = train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in run_dir.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_loss" in line] == [4]


def test_an_adapters_own_schedule_runs(tmp_path: Path, tiny_model: Path, rows: Path) -> None:
    options = {"total_step": 4, "tinit": 0, "tfinal": 1, "init_r": 6, "target_r": 2}
    recipe = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft=SFT, adapter={"adalora": options}
    )
    run_dir = train(recipe, tmp_path / "run")
    saved = json.loads((run_dir.adapter / "adapter_config.json").read_text())
    kept = saved["rank_pattern"]
    assert sum(sum(ranks) for ranks in kept.values()) == 2 * len(kept)


def test_a_refusal_within_the_training_names_its_line(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    options = {"total_step": 40, "tinit": 0, "tfinal": 1, "init_r": 6, "target_r": 2}
    recipe = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft=SFT, adapter={"adalora": options}
    )
    lines = recipe.read_text().splitlines()
    line = next(at for at, text in enumerate(lines, 1) if "total_step" in text)
    with pytest.raises(UsageError) as caught:
        train(recipe, tmp_path / "run")
    assert caught.value.message.startswith(f"{recipe}:{line} adapter.adalora.total_step: 40, but")


def test_what_the_trainer_will_drop_is_a_hint_and_no_warning(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    sft = {**SFT, "max_steps": 1, "label_smoothing_factor": 0.1}
    recipe = load_recipe(write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft))
    shown = io.StringIO()
    with warnings.catch_warnings(), planned_only_within_a_budget(recipe):
        warnings.simplefilter("error", FutureWarning)
        run(recipe, out=tmp_path / "run", console=Console(file=shown, width=400))
    assert "hint     method.sft.label_smoothing_factor: `label_smoothing_factor` is deprecated" in (
        shown.getvalue()
    )
