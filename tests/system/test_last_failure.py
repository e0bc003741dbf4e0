"""The last bug is kept where a report finds it, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.system.last_failure import keep_failure, last_failure


def test_what_was_raised_is_kept_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert last_failure() == {}
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        keep_failure(["run", "r.yaml"], error)
    kept = last_failure()
    assert kept["error"] == "ZeroDivisionError: division by zero"
    assert kept["arguments"] == ["run", "r.yaml"]
    assert kept["frames"][-1].startswith(f"{__file__}:")
    (file,) = tmp_path.rglob("*.json")
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("[" * 100_000)
    assert last_failure() == {}


def test_where_nothing_can_be_kept_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peftkit").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_failure([], ValueError("x"))
    assert last_failure() == {}
