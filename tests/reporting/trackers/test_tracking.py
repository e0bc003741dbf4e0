"""Trackers are opened, told and closed together, whichever way a run ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from training_fixture import train, train_until

from peftkit.errors import NetworkError
from peftkit.recipe.trackers import TRACKERS
from peftkit.reporting.trackers.base import Board
from peftkit.reporting.trackers.tracking import BOARDS


class Recorder(Board):
    """Keep what a run tells a tracker."""

    heard: list[Any] = []  # noqa: RUF012 - shared by every board of a test, on purpose
    fails: str = ""

    def _hear(self, word: str, *said: Any) -> None:
        self.heard.append((word, *said))
        if self.fails == word:
            raise RuntimeError(f"no {word} today")

    def open(self) -> str:
        self._hear("open", self.opening)
        return "the key"

    def tell(self, told: Any) -> None:
        self._hear("tell", told)

    def where(self) -> str:
        return "https://tracker.example/run"

    def close(self, *, finished: bool) -> None:
        self._hear("close", finished)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """Stand in for TensorBoard, whose package need not be here."""
    monkeypatch.setattr(Recorder, "heard", [])
    monkeypatch.setattr("peftkit.reporting.trackers.tracking.BOARDS", {"tensorboard": Recorder})
    monkeypatch.setattr("peftkit.run.reported_to", lambda _: ["tensorboard"])
    return Recorder


def words(recorder: type[Recorder]) -> list[str]:
    return [one[0] for one in recorder.heard]


def test_a_run_is_opened_told_and_closed_once(
    recipe: Path, tmp_path: Path, recorder: type[Recorder]
) -> None:
    run_dir = train(recipe, tmp_path / "run")
    assert words(recorder) == ["open", "tell", "close"]
    opening, told = recorder.heard[0][1], recorder.heard[1][1]
    assert opening.name.startswith("small-")
    assert opening.key is None
    scores = run_dir.read_json(run_dir.scores)
    assert told.numbers["scores/tuned/rougeL"] == scores["tuned"]["rougeL"]
    assert told.numbers["scores/first_sentence/rougeL"] == pytest.approx(
        scores["baselines"]["first_sentence"]["rougeL"]
    )
    assert told.numbers["measured/num_steps"] == told.step == 3
    assert told.columns[:2] == ["prompt", "reference"]
    assert len(told.samples) == 2
    assert recorder.heard[2] == ("close", True)
    assert "https://tracker.example/run" in run_dir.report.read_text(encoding="utf-8")
    train(recipe, tmp_path / "run")  # finished: nothing is told twice
    assert words(recorder) == ["open", "tell", "close"]


def test_a_stopped_run_goes_on_under_its_key(
    recipe: Path, tmp_path: Path, recorder: type[Recorder]
) -> None:
    rows = json.loads(recipe.read_text())
    rows["method"]["sft"]["max_steps"] = 6
    recipe.write_text(json.dumps(rows))
    train_until(recipe, tmp_path / "run", "step 2/6", signal.SIGTERM)
    assert words(recorder) == ["open", "close"]
    assert recorder.heard[-1] == ("close", False)
    train(recipe, tmp_path / "run")
    opening = recorder.heard[2][1]
    assert opening.key == "the key"
    assert 2 <= opening.step < 6
    assert words(recorder)[2:] == ["open", "tell", "close"]


def test_a_tracker_that_refuses_is_named_before_training(
    recipe: Path, tmp_path: Path, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "fails", "open")
    with pytest.raises(NetworkError, match=r"tensorboard cannot be opened: .*no open today"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "measured.json").exists()


def test_a_tracker_that_fails_at_the_end_cannot_fail_the_run(
    recipe: Path, tmp_path: Path, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "fails", "tell")
    run_dir = train(recipe, tmp_path / "run")
    assert json.loads(run_dir.status.read_text())["state"] == "finished"


def test_every_board_is_a_tracker_that_check_knows() -> None:
    assert set(BOARDS) <= set(TRACKERS)
