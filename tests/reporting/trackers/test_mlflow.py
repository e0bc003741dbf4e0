"""MLflow's own client finds what a run told it."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_fixture import train

from peftkit.reporting.trackers.told import told_of


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracker
def test_mlflow_shows_curves_scores_and_samples(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    run_dir = train(recipe, tmp_path / "run", "method.sft.report_to=mlflow")
    key = run_dir.read_json(run_dir.trackers)["mlflow"]["key"]
    run = mlflow.get_run(key)
    assert run.info.status == "FINISHED"
    assert {"loss", "scores/tuned/rougeL", "measured/peak_bytes"} <= set(run.data.metrics)
    assert run.data.tags["peftkit_run"] == str(run_dir.path)
    table = mlflow.load_table("samples.json", run_ids=[key])
    assert list(table["reference"]) == [row[1] for row in told_of(run_dir).samples]
    assert mlflow.active_run() is None
