"""However a run ends, its status says so, and a stranger's directory stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.errors import DataError, StoppedError, UsageError
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import (
    RunStatus,
    check_same_data,
    claimed,
    has_training,
    read_status,
    recorded,
)


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        (StoppedError("stopped by SIGTERM"), "stopped", 75),
        (DataError("no rows"), "failed", 3),
        (KeyboardInterrupt(), "stopped", 130),
        (ZeroDivisionError("oops"), "failed", 1),
    ],
)
def test_an_ending_is_recorded(
    tmp_path: Path, error: BaseException, state: str, exit_code: int
) -> None:
    kept = RunStatus(RunDir(tmp_path), identity="0f", step=7, total_steps=9)
    with pytest.raises(type(error)), recorded(kept):
        raise error
    status = read_status(RunDir(tmp_path))
    assert (status["state"], status["exit_code"], status["step"]) == (state, exit_code, 7)


def test_a_stranger_leaves_no_trace(tmp_path: Path) -> None:
    RunStatus(RunDir(tmp_path), identity="owner").write("stopped", exit_code=75)
    with pytest.raises(UsageError), recorded(RunStatus(RunDir(tmp_path))):
        raise UsageError("another run")
    assert read_status(RunDir(tmp_path))["identity"] == "owner"


def test_a_directory_with_only_hidden_files_is_new(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with claimed(RunDir(tmp_path)):
        assert not has_training(RunDir(tmp_path))


def test_a_directory_in_which_only_the_base_was_recorded_is_new(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text("{}")
    with claimed(RunDir(tmp_path)):
        pass
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="is not empty and no run"), claimed(RunDir(tmp_path)):
        pass


def test_a_directory_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="cannot be made or read"),
        claimed(RunDir(tmp_path / "file" / "run")),
    ):
        pass


def test_rows_may_change_until_something_was_trained(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.data.write_text('{"fingerprint": "aaaa"}')
    check_same_data(run_dir, "bbbb")
    (run_dir.checkpoints / "step-1").mkdir(parents=True)
    with pytest.raises(UsageError, match="data fingerprint aaaa -> bbbb"):
        check_same_data(run_dir, "bbbb")


def test_an_ending_takes_the_room_that_was_kept_for_it(tmp_path: Path) -> None:
    kept = RunStatus(RunDir(tmp_path), identity="0f")
    kept.write("running")
    kept.keep_room()
    room = tmp_path / ".room"
    assert room.stat().st_blocks * 512 > 2 * kept.run_dir.status.stat().st_size
    kept.end("failed", exit_code=5, message="the disk is full")
    assert not room.exists()
    assert read_status(RunDir(tmp_path))["exit_code"] == 5
