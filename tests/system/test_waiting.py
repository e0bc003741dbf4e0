"""Threads wait asleep beside other work, and as they are told to by somebody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peftkit.system import waiting


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in waiting.SAID:
        monkeypatch.setenv(name, "")  # so that what is set here is unset afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(waiting, "_share_at_work", lambda: 1.0)


def said() -> dict[str, str]:
    return {name: os.environ[name] for name in waiting.SAID if name in os.environ}


@pytest.mark.parametrize(("load", "asleep"), [(0.2, False), (1.9, False), (2.0, True), (9, True)])
def test_they_sleep_where_others_compute(
    monkeypatch: pytest.MonkeyPatch, load: float, asleep: bool
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0))
    assert waiting.wait_asleep_if_busy() is asleep
    assert said() == ({"OMP_WAIT_POLICY": "passive"} if asleep else {})


def times(file: Path, idle: int, total: int) -> None:
    file.write_text(f"cpu  {total - idle} 0 0 {idle - 5} 5 0 0 0 0 0\ncpu0 1 2\n")


@pytest.mark.parametrize(("idle", "asleep"), [(40, False), (28, False), (20, True), (0, True)])
def test_work_that_has_ended_keeps_nobody_asleep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, idle: int, asleep: bool
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "getloadavg", lambda: (9, 9, 9))
    monkeypatch.setattr(waiting, "_TIMES", tmp_path / "stat")
    times(tmp_path / "stat", 1000, 5000)
    later = lambda _: times(tmp_path / "stat", 1000 + idle, 5040)  # noqa: E731
    monkeypatch.setattr(waiting.time, "sleep", later)
    assert waiting._is_busy() is asleep
    (tmp_path / "stat").unlink()
    assert waiting._is_busy()


@pytest.mark.parametrize("name", waiting.SAID)
def test_what_somebody_said_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9, 9, 9))
    monkeypatch.setenv(name, "active")
    assert not waiting.wait_asleep_if_busy()
    assert said() == {name: "active"}


def test_a_system_without_a_load_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    assert not waiting.wait_asleep_if_busy()
    assert not said()
