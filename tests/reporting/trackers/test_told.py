"""What a tracker is told is read from a run's own files."""

from __future__ import annotations

from pathlib import Path

from peftkit.reporting.trackers.told import MAX_CHARS, as_markdown, told_of
from peftkit.rundir.paths import RunDir


def test_what_is_told_is_finite_and_short(tiny_run: Path) -> None:
    told = told_of(RunDir(tiny_run))
    assert all(len(cell) <= MAX_CHARS + 4 for row in told.samples for cell in row)
    assert {"resolved.yaml", "scores.json", "report.html"} <= {file.name for file in told.files}
    table = as_markdown(["a", "b"], [["x|y", "two\nlines"]])
    assert table.splitlines()[-1] == "| x\\|y | two<br>lines |"
