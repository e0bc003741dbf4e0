"""TensorBoard's own reader finds what a run told it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from training_fixture import train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tracker
def test_tensorboard_shows_curves_scores_and_samples(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = train(recipe, tmp_path / "run", "method.sft.report_to=tensorboard")
    found = EventAccumulator(str(run_dir.path / "tensorboard"))
    found.Reload()
    names = set(found.Tags()["scalars"])
    assert {"train/loss", "scores/tuned/rougeL", "measured/peak_bytes"} <= names
    assert [one.step for one in found.Scalars("train/loss")] == [1, 2, 3]
    assert {"samples/text_summary", "recipe/text_summary"} <= set(found.Tags()["tensors"])
    assert not list(run_dir.checkpoints.glob("**/events.out*"))
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
