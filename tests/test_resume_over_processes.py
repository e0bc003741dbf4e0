"""A run goes on in another number of processes than it began in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file
from training_fixture import cut_back, losses, train, write_recipe
from two_processes import in_processes, several_runs

from peftkit.errors import UsageError
from peftkit.rundir.paths import RunDir

SFT = {
    "learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 2,
    "max_length": 128, "save_steps": 3, "save_total_limit": 9, "logging_steps": 1, "use_cpu": True,
    "gradient_accumulation_steps": 4,
}  # fmt: skip
NUM_ROWS = 29
"""Uneven: the last of an epoch's four steps reads five of eight rows."""
ACCUMULATED = "method.sft.gradient_accumulation_steps"


def adapter_of(run_dir: RunDir) -> dict[str, float]:
    return load_file(run_dir.adapter / "adapter_model.safetensors")


def apart(one: RunDir, other: RunDir) -> float:
    """Return how far the weights of two runs are apart at most."""
    ours, theirs = adapter_of(one), adapter_of(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ours)


def resume(folder: Path, recipe: Path, out: Path, num_processes: int, *overrides: str) -> str:
    """Go on in so many processes; return what the main one printed."""
    folder.mkdir()
    dealt = f"{ACCUMULATED}={4 // num_processes}"
    runs = [["run", str(recipe), [dealt, *overrides]]]
    (folder / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    shutil.copytree(out, folder / "run")
    ended = in_processes(num_processes, folder, several_runs)
    assert [one["several_runs"]["run"] for one in ended] == ["nothing"] * num_processes
    return (folder / "run.0.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_one_two_and_four_processes_go_on_where_the_others_stopped(
    tmp_path: Path, tiny_model: Path, order: str
) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(NUM_ROWS))
    sft = {**SFT, "train_sampling_strategy": order}
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft)
    alone = train(recipe, tmp_path / "alone")
    out = tmp_path / "alone-cut"
    shutil.copytree(alone.path, out)
    cut_back(RunDir(out), step=3)
    for number, (num_processes, step) in enumerate([(2, 3), (4, 6), (1, 6)]):
        folder = tmp_path / f"{number}-in-{num_processes}"
        shown = resume(folder, recipe, out, num_processes)
        out = folder / "run"
        assert f"resuming at step {step}" in shown
        assert losses(RunDir(out)) == pytest.approx(losses(alone), abs=1e-4)
        assert apart(RunDir(out), alone) < 1e-5
        cut_back(RunDir(out), step=6)


@pytest.mark.slow
def test_shards_are_saved_so_that_any_number_of_processes_reads_them(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(NUM_ROWS))
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft={**SFT, "fsdp": True})
    alone = train(recipe, tmp_path / "alone", "method.sft.fsdp=false")
    out = tmp_path / "empty"
    out.mkdir()
    for number, num_processes in enumerate([2, 4, 2]):
        folder = tmp_path / f"{number}-in-{num_processes}"
        shown = resume(folder, recipe, out, num_processes)
        out = folder / "run"
        assert ("resuming at step 3" in shown) == (number > 0)
        assert losses(RunDir(out)) == pytest.approx(losses(alone), abs=1e-4)
        assert apart(RunDir(out), alone) < 1e-5
        cut_back(RunDir(out), step=3)


def test_another_number_of_rows_a_step_is_another_run_and_says_how_to_keep_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(8))
    sft = {**SFT, "num_train_epochs": 1, "save_steps": 1}
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=sft)
    run_dir = train(recipe, tmp_path / "run")
    resolved = run_dir.read_resolved()
    from peftkit.rundir.status import check_same_recipe

    check_same_recipe(run_dir, resolved, 1)
    with pytest.raises(UsageError, match=r"processes: 1 -> 2") as caught:
        check_same_recipe(run_dir, resolved, 2)
    assert caught.value.hint == (
        "method.sft.gradient_accumulation_steps=2, with which 2 processes read the same 8 rows a"
        " step"
    )
