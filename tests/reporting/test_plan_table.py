"""Planned beside measured: the percent are right, and either file may be missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_fixture
from hypothesis import given
from hypothesis import strategies as st
from plan_fixture import linear_plan

from peftkit.memory.terms import TERMS
from peftkit.report import view
from peftkit.reporting.plan_table import lay_out_plan


def _read(tmp_path: Path) -> tuple[dict, dict]:
    run_dir = report_fixture.make_run(tmp_path / "run", num_steps=240)
    return json.loads(run_dir.plan.read_text()), json.loads(run_dir.measured.read_text())


def test_planned_stands_beside_measured(tmp_path: Path) -> None:
    table = lay_out_plan(*_read(tmp_path))
    assert table is not None
    rows = {row.label: row for row in table.rows}
    peak = rows["Peak memory"]
    assert (peak.planned, peak.planned_note) == ("1.10 GiB", "in backward")
    assert (peak.measured, peak.measured_note) == ("1.22 GiB", "resident memory")
    assert peak.difference == "-10.0 %"  # 1,179,648,000 of 1,310,000,000
    step = rows["Time a step"]
    assert (step.planned, step.planned_note, step.measured) == ("0.31 s", "predicted", "0.348 s")
    assert step.difference == "-10.8 %"  # 83.4 s over 240 steps
    assert rows["Tokens a second"].measured == "9,417"
    assert rows["Whole training"].planned == "2 min 29 s"
    text = " ".join(table.notes)
    assert "16 rows of 367 tokens, the longest, 2 a step" in text
    assert "memory.budget (3.00 GiB)" in text
    assert "memory traffic" in text


def test_every_term_of_a_plan_has_a_line_and_the_largest_bar_is_full(tmp_path: Path) -> None:
    plan, _ = _read(tmp_path)
    table = lay_out_plan(plan, {})
    assert table is not None
    assert len(table.terms) == len(TERMS) - 1  # a run is one process, and has no collectives
    by_label = {term.label: term for term in table.terms}
    assert by_label["Saved activations"].percent == 100
    assert by_label["Base"].size == "28 MiB"
    assert by_label["Base"].formula == ""  # it is the number itself
    assert by_label["Gradients"].size == ""


def test_a_real_plan_is_laid_out() -> None:
    content = linear_plan(fixed=3 << 30, per_token=1 << 10).to_json()
    table = lay_out_plan(content, {})
    assert table is not None
    assert table.rows[0].planned == "3.00 GiB"
    assert [row.label for row in table.rows] == ["Peak memory"]  # no time was predicted


@pytest.mark.parametrize("missing", ["plan", "measured", "both"])
def test_either_file_may_be_missing(tmp_path: Path, missing: str) -> None:
    run_dir = report_fixture.make_run(tmp_path / "run")
    if missing in ("plan", "both"):
        run_dir.plan.unlink()
    if missing in ("measured", "both"):
        run_dir.measured.unlink()
    table = view(run_dir)["plan"]
    if missing == "both":
        assert table is None
        return
    assert all(row.difference == "" for row in table.rows)
    assert bool(table.terms) == (missing == "measured")
    peak = table.rows[0]
    assert bool(peak.planned) == (missing == "measured")
    assert bool(peak.measured) == (missing == "plan")


@given(planned=st.integers(1, 1 << 45), real=st.integers(1, 1 << 45))
def test_the_difference_is_the_share_of_the_measured(planned: int, real: int) -> None:
    table = lay_out_plan({"peak_bytes": planned}, {"peak_bytes": real})
    assert table is not None
    percent = float(table.rows[0].difference.removesuffix(" %"))
    assert percent == pytest.approx(100 * (planned - real) / real, abs=0.0501)
