"""The page of predicted scaling says what was counted, and that is what the formula says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scaling

    yield scaling
    sys.modules.pop("scaling", None)


def test_the_page_is_what_the_results_say(scaling: Any) -> None:
    counted = json.loads(scaling.RESULTS.read_text(encoding="utf-8"))
    real = json.loads(scaling.REAL.read_text(encoding="utf-8"))
    assert scaling.PAGE.read_text(encoding="utf-8") == scaling.page(counted, real)
    sent = real["bytes"]
    assert sent["sent_bytes"] == pytest.approx(sent["formula_bytes"], rel=0.02)
    assert max(turn["loss_apart"] for turn in real["speed"]["turns"]) <= 1e-4


def test_processes_sent_what_the_formula_says(scaling: Any) -> None:
    counted = json.loads(scaling.RESULTS.read_text(encoding="utf-8"))
    ways = [(one["strategy"], one["num_processes"]) for one in counted]
    assert ways == [("ddp", 2), ("ddp", 4), ("fsdp2", 2), ("fsdp2", 4)]
    for one in counted:
        assert one["sent_bytes"] == pytest.approx(scaling.formula(one), rel=0.005)


def test_shares_come_from_recorded_runs(scaling: Any) -> None:
    runs = scaling.recorded()
    assert {*runs} == {"full-4", "lora-4", "qlora-4"}
    # Frozen weights need no gradient: their backward is nearer to a forward than to two, though
    # checkpointing adds a forward to both.
    assert runs["lora-4"]["backward"] < runs["full-4"]["backward"] < 0.8
    assert runs["lora-4"]["seconds"] == pytest.approx(16384 / 3324.155)
