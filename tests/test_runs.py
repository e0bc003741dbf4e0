"""List, compare and delete, on directories of every kind."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import report_fixture
import yaml
from rich.console import Console

from peftkit.errors import ResourceError, UsageError
from peftkit.rundir.paths import RunDir, locked
from peftkit.runs import (
    check_deletable,
    compare_runs,
    comparison_to_json,
    delete_run,
    list_runs,
    render_comparison,
    render_runs,
    runs_to_json,
    summarize,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    report_fixture.make_run(tmp_path / "runs" / "one")
    report_fixture.make_stopped_run(tmp_path / "runs" / "two")
    return tmp_path / "runs"


def _shown(renderable) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_runs_are_listed_with_state_step_score_and_size(root: Path) -> None:
    (root / "no-run").mkdir()
    (root / "link").symlink_to(root / "one")
    listed = {run.name: run for run in list_runs(root)}
    assert set(listed) == {"one", "two"}
    assert listed["one"].state == "finished"
    assert (listed["two"].state, listed["two"].step, listed["two"].total_steps) == (
        "stopped", 120, 240,
    )  # fmt: skip
    assert listed["one"].tuned == pytest.approx(0.3121)
    text = _shown(render_runs(list_runs(root)))
    assert "rougeL 0.312 (base 0.093)" in text
    assert "120/240" in text
    assert json.loads(json.dumps(runs_to_json(list_runs(root))))[0]["num_bytes"] > 0


def test_no_runs_is_said(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    assert "no runs here; `peftkit run RECIPE` makes one" in _shown(render_runs([]))


def test_a_run_whose_process_is_gone_was_killed(root: Path) -> None:
    run_dir = RunDir(root / "one")
    status = json.loads(run_dir.status.read_text())
    run_dir.status.write_text(json.dumps({**status, "state": "running"}))
    assert summarize(run_dir).state == "killed"
    with locked(run_dir):
        assert summarize(run_dir).state == "running"
    assert summarize(run_dir).state == "killed"


def test_a_comparison_shows_what_differs_and_the_scores(root: Path) -> None:
    other = report_fixture.make_run(root / "other")
    resolved = yaml.safe_load(other.resolved.read_text())
    resolved["adapter"]["lora"]["r"] = 64
    other.resolved.write_text(yaml.safe_dump(resolved))
    found = compare_runs([root / "one", root / "other"])

    assert found.recipe == {"adapter.lora.r": (16, 64)}
    assert found.scores["rougeL"] == (0.3121, 0.3121)
    assert found.measured["final_loss"] == (1.17, 1.17)
    assert found.is_same_data
    text = _shown(render_comparison(found))
    assert "adapter.lora.r" in text
    # Each number in its unit, below the part it belongs to
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["recipe"] == rows["measured"] == rows["scores"] == []
    assert rows["train_seconds"] == ["1", "min", "23", "s"] * 2
    assert rows["peak_bytes"] == ["1.22", "GiB"] * 2
    assert rows["num_tokens"] == ["785,400"] * 2
    assert "scores are not comparable" not in text
    assert comparison_to_json(found)["schema_version"] == 1

    data = json.loads(other.data.read_text())
    other.data.write_text(json.dumps({**data, "fingerprint": "0"}))
    found = compare_runs([root / "one", root / "other"])
    assert "scores are not comparable" in _shown(render_comparison(found))


def test_one_run_cannot_be_compared(root: Path) -> None:
    with pytest.raises(UsageError, match="one run alone"):
        compare_runs([root / "one"])


def test_what_a_deletion_would_lose_is_known_before(root: Path) -> None:
    found = check_deletable(root / "one")
    assert found == summarize(RunDir(root / "one"))
    (root / "one" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds what no run wrote"):
        check_deletable(root / "one")


def test_a_run_is_deleted_whole(root: Path) -> None:
    size = summarize(RunDir(root / "one")).num_bytes
    assert delete_run(root / "one") == size
    assert not (root / "one").exists()


def test_nothing_else_is_ever_deleted(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(root / "one")
    (root / "two" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is a link"):
        delete_run(root / "link")
    with pytest.raises(UsageError, match="is not a run directory"):
        delete_run(tmp_path)
    with pytest.raises(UsageError, match=r"holds what no run wrote: thesis\.tex"):
        delete_run(root / "two")
    with locked(RunDir(root / "one")), pytest.raises(ResourceError, match="is in use by process"):
        delete_run(root / "one")
    assert (root / "one" / "status.json").exists()
    assert (root / "two" / "thesis.tex").exists()


def test_links_inside_a_run_are_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (root / "one" / "checkpoints").symlink_to(tmp_path / "precious")
    delete_run(root / "one")
    assert (tmp_path / "precious" / "file").exists()
