"""What a process leaves is what torch's launcher reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.system.launcher import FILE, leave_for_launcher


def test_torch_reads_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    file = tmp_path / "error.json"
    monkeypatch.setenv(FILE, str(file))
    assert leave_for_launcher("no room", 5)
    read = ProcessFailure(local_rank=1, pid=1, exitcode=5, error_file=str(file))
    assert (read.message["message"], read.message["errorCode"]) == ("no room", 5)
    assert "no room" in read.message["extraInfo"]["py_callstack"]


def test_without_a_launcher_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FILE, raising=False)
    assert not leave_for_launcher("no room", 5)
    monkeypatch.setenv(FILE, str(tmp_path / "none" / "error.json"))
    assert not leave_for_launcher("no room", 5)
