"""An offline run of wandb holds what a run told it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from training_fixture import train

from peftkit.reporting.trackers.told import told_of


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracker
def test_wandb_offline_shows_curves_scores_and_samples(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run_dir = train(recipe, tmp_path / "run", "method.sft.report_to=wandb")
    where = Path(run_dir.read_json(run_dir.trackers)["wandb"]["where"].removeprefix("wandb sync "))
    (records,) = where.glob("*.wandb")
    wanted, deadline = (b"train/loss", b"scores/tuned/rougeL", b"samples"), time.monotonic() + 30
    while not all(key in records.read_bytes() for key in wanted):  # its service writes them late
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (table,) = where.glob("files/media/table/samples*.json")
    rows = json.loads(table.read_text(encoding="utf-8"))["data"]
    assert rows == [list(row) for row in told_of(run_dir).samples]
