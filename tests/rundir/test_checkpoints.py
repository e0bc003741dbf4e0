"""Resume is exact, takes only whole checkpoints, and never the wrong ones."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import tiny
from training_fixture import LORA, cut_back, losses, sha256, train, train_until, write_recipe

from peftkit.rundir import checkpoints as resume
from peftkit.rundir.metrics import read_metrics
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import read_status

# 11 rows, batches of 2, two a step: 3 steps an epoch, the last of them with a single row more.
SFT = {
    "learning_rate": 1e-3,
    "max_steps": 8,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_length": 128,
    "logging_steps": 1,
    "save_steps": 1,
    "save_total_limit": 8,
    "eval_strategy": "epoch",
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return a recipe with everything that draws random numbers: dropout and evaluations."""
    folder = tmp_path_factory.mktemp("recipe")
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(11))
    held_out = tiny.write_jsonl(folder / "held-out.jsonl", tiny.rows(3, seed=9))
    return write_recipe(
        folder / "r.json",
        tiny_model,
        rows,
        sft=SFT,
        lora={**LORA, "lora_dropout": 0.1},
        data={
            "source": {"json": {"files": {"train": str(rows), "validation": str(held_out)}}},
            "splits": {"train": "train", "validation": "validation"},
            "task": {"summarize": {"document": "document", "summary": "summary"}},
        },
    )


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Return a run that was never interrupted."""
    return train(recipe, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def copied(whole: RunDir, tmp_path: Path) -> RunDir:
    """Return a copy of it to damage."""
    shutil.copytree(whole.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize("step", [1, 3, 5, 6])
def test_a_killed_run_goes_on_to_the_same_bits(
    recipe: Path, whole: RunDir, copied: RunDir, step: int
) -> None:
    cut_back(copied, step=step)
    train(recipe, copied.path)

    assert sha256(copied) == sha256(whole)
    assert losses(copied) == losses(whole)
    ours, theirs = (read_metrics(one.metrics)[-1] for one in (copied, whole))
    assert ours["num_tokens"] == theirs["num_tokens"]


@pytest.mark.parametrize("step", [2, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(
    recipe: Path, whole: RunDir, tmp_path: Path, step: int
) -> None:
    error, _ = train_until(recipe, tmp_path / "run", f"step {step - 1}/", signal.SIGTERM)
    run_dir = RunDir(tmp_path / "run")

    assert error.exit_code == 75
    assert str(error) == f"stopped by SIGTERM: the same command resumes at step {step}"
    status = read_status(run_dir)
    assert (status["state"], status["exit_code"], status["step"]) == ("stopped", 75, step)
    assert not run_dir.adapter.exists()
    train(recipe, run_dir.path)
    assert sha256(run_dir) == sha256(whole)
    assert losses(run_dir) == losses(whole)


def test_a_run_killed_before_its_adapter_was_written_only_writes_it(
    recipe: Path, whole: RunDir, copied: RunDir
) -> None:
    cut_back(copied, step=8)
    before = copied.metrics.read_bytes()
    train(recipe, copied.path)
    assert sha256(copied) == sha256(whole)
    assert copied.metrics.read_bytes() == before
    assert json.loads(copied.measured.read_text())["num_steps"] == 8


def _remove(name: str):
    return lambda folder: (folder / name).unlink()


def _append(name: str):
    def damage(folder: Path) -> None:
        with (folder / name).open("ab") as stream:
            stream.write(b"\0")

    return damage


def _flip(folder: Path) -> None:
    file = folder / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_remove("manifest.json"), "it has no manifest.json, which is written last"),
        (_remove("rng_state.pth"), "rng_state.pth is missing"),
        (_append("adapter_model.safetensors"), "adapter_model.safetensors has "),
        (_flip, "optimizer.pt has another sha256 than when it was written"),
        (lambda f: (f / "optimizer.bin").write_bytes(b"x"), "optimizer.bin is not in its manifest"),
        (lambda f: (f / "manifest.json").write_text("{"), "its manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_an_older_whole_one(
    copied: RunDir, damage, reason: str
) -> None:
    identity = read_status(copied)["identity"]
    damage(copied.checkpoints / "step-8")
    found, notes = resume.find_checkpoint(copied.checkpoints, identity=identity)
    assert found is not None
    assert found.step == 7
    assert len(notes) == 1
    assert notes[0].startswith(f"ignored step-8: {reason}")


def test_a_checkpoint_of_another_run_is_never_resumed(copied: RunDir) -> None:
    found, notes = resume.find_checkpoint(copied.checkpoints, identity="0" * 64)
    assert found is None
    assert notes[0] == "ignored step-8: it belongs to another run"


def test_a_checkpoint_that_was_being_written_is_named_and_cleared(
    recipe: Path, whole: RunDir, copied: RunDir
) -> None:
    cut_back(copied, step=6)
    (copied.checkpoints / "step-6").rename(copied.checkpoints / "checkpoint-6")
    identity = read_status(copied)["identity"]
    found, notes = resume.find_checkpoint(copied.checkpoints, identity=identity)
    assert found is not None
    assert found.step == 5
    assert notes == ["ignored checkpoint-6: the run ended while it was written"]
    train(recipe, copied.path)
    assert sha256(copied) == sha256(whole)
    assert not list(copied.checkpoints.glob("checkpoint-*"))


def test_only_the_newest_checkpoints_and_the_best_are_kept(copied: RunDir) -> None:
    best = copied.checkpoints / "step-2"
    resume.prune(copied.checkpoints, keep=2, also=best)
    kept = [checkpoint.step for checkpoint in resume.list_checkpoints(copied.checkpoints)]
    assert kept == [2, 7, 8]


def test_differences_are_dotted_keys_with_both_values() -> None:
    old = {"a": {"b": 1, "c": 2}, "decisions": [1]}
    new = {"a": {"b": 1, "c": 3, "d": 4}, "decisions": [2]}
    assert resume.differences(old, new) == {"a.c": (2, 3), "a.d": (None, 4)}
