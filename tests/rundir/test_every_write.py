"""A kill, or a full disk, at any write of a run: the same command ends with the same bits."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import tiny
from forked_runs import num_writes, run_forked
from training_fixture import sha256, write_recipe

from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import read_status
from peftkit.rundir.whole import find_lost

SFT = {
    "learning_rate": 1e-2, "max_steps": 2, "per_device_train_batch_size": 2, "max_length": 64,
    "save_steps": 1, "save_total_limit": 1,
}  # fmt: skip
SHARES = 8
"""Parts of a sweep, each a test: numbers of writes that leave the same remainder."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[RunDir, Path, int]:
    """Return a run that nothing befell, its recipe, and how many writes it made."""
    folder = tmp_path_factory.mktemp("whole")
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(6))
    recipe = write_recipe(folder / "r.json", tiny_model, rows, sft=SFT, evaluate=True)
    number = num_writes(recipe, folder / "run")
    return RunDir(folder / "run"), recipe, number


def kill(at: int):
    def at_write(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return at_write


def full(at: int):
    def at_write(number: int) -> None:
        if number == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return at_write


def check_goes_on(whole: RunDir, recipe: Path, run_dir: RunDir, at: int) -> None:
    """Run the same command again: everything is there, and it is what it would have been."""
    said = run_dir.path.with_name("said")
    assert run_forked(recipe, run_dir.path) == 0, (at, said.read_text())
    assert sha256(run_dir) == sha256(whole), at
    assert list(find_lost(run_dir, is_scored=True)) == [], at
    assert read_status(run_dir)["state"] == "finished", at
    assert run_dir.samples.read_bytes() == whole.samples.read_bytes(), at
    assert not list(run_dir.path.glob(".*.partial")), at


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_kill_at_every_write(whole: tuple[RunDir, Path, int], tmp_path: Path, share: int) -> None:
    run, recipe, number = whole
    for at in range(1 + share, number + 1, SHARES):
        run_dir = RunDir(tmp_path / "run")
        shutil.rmtree(run_dir.path, ignore_errors=True)
        assert run_forked(recipe, run_dir.path, kill(at)) == -signal.SIGKILL, at
        check_goes_on(run, recipe, run_dir, at)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_full_disk_at_every_write(
    whole: tuple[RunDir, Path, int], tmp_path: Path, share: int
) -> None:
    run, recipe, number = whole
    for at in range(1 + share, number + 1, SHARES):
        run_dir = RunDir(tmp_path / "run")
        shutil.rmtree(run_dir.path, ignore_errors=True)
        code = run_forked(recipe, run_dir.path, full(at))
        said = run_dir.path.with_name("said").read_text()
        assert code in (0, 5), (at, said)
        assert "Traceback" not in said, (at, said)
        state = read_status(run_dir)
        if state:
            assert (state["state"], state["exit_code"]) == (
                ("finished", 0) if code == 0 else ("failed", 5)
            ), (at, state, said)
        check_goes_on(run, recipe, run_dir, at)
