"""What a run trains is attached as trl would, and loaded again as it was."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import tiny
import torch
from rich.console import Console
from training_fixture import train, write_recipe

from peftkit.recipe.load import load_recipe
from peftkit.rundir.paths import RunDir
from peftkit.system.screen import Screen
from peftkit.training.load import load_base, load_last, load_model, load_trained
from peftkit.training.prepare import Job, prepare

SFT = {"max_steps": 2, "per_device_train_batch_size": 2, "max_length": 128, "save_steps": 1}
IDS = torch.arange(10, 26).unsqueeze(0)


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(6))


def job_of(recipe: Path, out: Path, screen: Screen) -> Job:
    return prepare(load_recipe(recipe), RunDir(out), screen)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_the_first_weights_come_from_the_seed(
    tmp_path: Path, tiny_model: Path, rows: Path, screen: Screen
) -> None:
    first = {}
    for seed in (1, 1, 2):
        recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft={**SFT, "seed": seed})
        model = load_model(job_of(recipe, tmp_path / "run", screen), screen)
        weights = torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])
        assert torch.equal(first.setdefault(seed, weights), weights)
    assert not torch.equal(first[1], first[2])


@pytest.mark.parametrize("adapter", [{"lora": {"r": 4, "target_modules": "all-linear"}}, "full"])
def test_what_was_trained_comes_back(
    tmp_path: Path, tiny_model: Path, rows: Path, screen: Screen, adapter
) -> None:
    sft = {**SFT, "learning_rate": 1e-2}
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft, adapter=adapter)
    run_dir = train(recipe, tmp_path / "run")
    job = job_of(recipe, run_dir.path, screen)
    trained = load_trained(job, run_dir.trained)
    last = load_last(job, run_dir.checkpoints / "step-2", screen)
    assert torch.equal(logits(trained), logits(last))
    assert not torch.equal(logits(trained), logits(load_base(job)))
    assert any(p.requires_grad for p in last.parameters())
    if adapter != "full":
        assert not any(p.requires_grad for p in trained.parameters())


def test_the_encoder_of_a_prompt_comes_back_with_it(
    tmp_path: Path, tiny_model: Path, rows: Path, screen: Screen
) -> None:
    adapter = {"p_tuning": {"num_virtual_tokens": 4}}
    sft = {**SFT, "learning_rate": 1e-2}
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft, adapter=adapter)
    run_dir = train(recipe, tmp_path / "run")
    job = job_of(recipe, run_dir.path, screen)
    last = load_last(job, run_dir.checkpoints / "step-2", screen)
    torch.testing.assert_close(logits(last), logits(load_trained(job, run_dir.adapter)))


def test_an_adapter_is_continued_from_where_it_was(
    tmp_path: Path, tiny_model: Path, rows: Path, screen: Screen
) -> None:
    sft = {**SFT, "learning_rate": 1e-2}
    first = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft)
    run_dir = train(first, tmp_path / "run")
    second = write_recipe(
        tmp_path / "s.json", tiny_model, rows, sft=sft, adapter={"from": str(run_dir.path)}
    )
    job = job_of(second, tmp_path / "second", screen)
    continued = load_model(job, screen)
    assert any(p.requires_grad for p in continued.parameters())
    assert torch.equal(logits(continued), logits(load_trained(job, run_dir.adapter)))
