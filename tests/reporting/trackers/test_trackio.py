"""Trackio's own store holds what a run told it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from training_fixture import train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracker
def test_trackio_shows_curves_scores_and_samples(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read where it is imported
    for name in [one for one in sys.modules if one.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run_dir = train(recipe, tmp_path / "run", "method.sft.report_to=trackio")
    name = run_dir.read_json(run_dir.trackers)["trackio"]["key"]
    logs = SQLiteStorage.get_logs("huggingface", name)
    keys = {key for line in logs for key in line}
    assert {"train/loss", "scores/tuned/rougeL", "samples"} <= keys
