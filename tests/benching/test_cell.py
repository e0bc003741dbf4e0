"""One cell: planned, run where its device is here, and honest about what was not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plan_fixture import GIB, linear_plan

from peftkit.benching import cell as cells
from peftkit.benching.grid import Cell
from peftkit.errors import ResourceError
from peftkit.memory import planner as planning
from peftkit.planning import devices

CONFIG = {"model_type": "llama", "vocab_size": 8192, "hidden_size": 64, "num_hidden_layers": 2}
SECTIONS = {
    "model": {"dtype": "float32"},
    "adapter": {"lora": {"r": 4, "target_modules": "all-linear"}},
    "method": {"sft": {}},
}


def cell_of(gpu_gib: float | None = None, edge: float | None = None) -> Cell:
    return Cell("g", "tiny", "lora", CONFIG, SECTIONS, 64, 2, gpu_gib, edge, 2, 0)


def stub_plan(
    monkeypatch: pytest.MonkeyPatch, peak: int, per_token: int = 0
) -> list[dict[str, Any]]:
    """Put a plan of a given peak in the planner's place; return what it was asked."""
    asked: list[dict[str, Any]] = []

    def make(recipe: Any, **options: Any) -> Any:
        asked.append(options)
        made = linear_plan(fixed=peak, per_token=per_token)
        object.__setattr__(made, "to_json", lambda: {"peak_bytes": peak, "terms": []})
        return made

    monkeypatch.setattr(planning, "plan", make)
    return asked


def stub_trial(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    def run(*_: Any) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(cells, "run_trial", run)


@pytest.fixture(autouse=True)
def _no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no rates: they take a second, and have a test of their own."""
    monkeypatch.setattr(cells, "measure_host", lambda *_: devices.find("t4"))


class FakeTrial:
    """Stand for a trial's result."""

    def to_json(self) -> dict[str, Any]:
        return {"peak_bytes": 3 * GIB}


def test_a_cell_is_planned_at_its_size_and_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stub_plan(monkeypatch, GIB)
    stub_trial(monkeypatch, FakeTrial())
    result = cells.run_cell(cell_of(), "speed")
    assert asked[0]["lengths"] == [64, 64]
    assert (result["basis"], result["fitted"]) == ("measured", True)
    assert result["measured"] == {"peak_bytes": 3 * GIB}
    assert result["predicted"]["peak_bytes"] == GIB
    assert result["versions"]["torch"]
    assert Cell.from_json(json.loads(json.dumps(result))["cell"]) == cell_of()


def test_a_card_that_is_not_here_is_predicted_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stub_plan(monkeypatch, GIB)
    stub_trial(monkeypatch, AssertionError("must not run"))
    result = cells.run_cell(cell_of(gpu_gib=1e6), "memory")
    assert (result["basis"], result["fitted"], result["measured"]) == ("predicted", None, None)
    assert "no device of" in result["reason"]
    assert asked[0]["machine"].device == "cuda"
    assert result["predicted"]["speed"]["basis"] == "predicted"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_running_out_of_memory_is_a_result(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stub_plan(monkeypatch, GIB)
    stub_trial(monkeypatch, error)
    result = cells.run_cell(cell_of(), "speed")
    assert (result["basis"], result["fitted"], result["measured"]) == ("measured", False, None)
    assert result["reason"]


def test_a_bug_is_not_taken_for_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_plan(monkeypatch, GIB)
    stub_trial(monkeypatch, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        cells.run_cell(cell_of(), "speed")


def test_a_cell_too_large_for_this_machine_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_plan(monkeypatch, 1 << 60)
    stub_trial(monkeypatch, AssertionError("must not run"))
    result = cells.run_cell(cell_of(), "memory")
    assert result["basis"] == "predicted"
    assert "are free here" in result["reason"]


def test_what_cannot_be_planned_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ResourceError("the operator x has no fake implementation")

    monkeypatch.setattr(planning, "plan", refuse)
    stub_trial(monkeypatch, FakeTrial())
    result = cells.run_cell(cell_of(), "speed")
    assert result["predicted"] is None
    assert "operator x" in result["unplanned"]
    assert result["fitted"] is True


def test_main_reads_a_cell_and_writes_its_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cells, "run_cell", lambda cell, kind: {"name": cell.name, "kind": kind})
    (tmp_path / "cell.json").write_text(json.dumps(cell_of().to_json()), encoding="utf-8")
    cells.main([str(tmp_path / "cell.json"), str(tmp_path / "result.json"), "speed"])
    content = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert content.pop("seal")
    assert content == {"schema_version": 1, "name": "tiny_lora_64x2", "kind": "speed"}


def test_an_edge_becomes_a_length_around_the_planned_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4 GiB less 1 fixed, 1 MiB a token, 2 rows: 1,536 tokens a row fit."""
    stub_plan(monkeypatch, GIB, per_token=1 << 20)
    monkeypatch.setattr(cells, "find_place", lambda gib: cells.Place(planned_for(gib), False))
    for edge, length in ((0.5, 768), (1.0, 1536), (1.25, 1920)):
        result = cells.run_cell(cell_of(gpu_gib=4, edge=edge), "memory")
        assert result["cell"]["length"] == length
        assert result["name"] == f"tiny_lora_edge{edge:g}x2_4gib"


def planned_for(gib: float) -> Any:
    return devices.of_size(gib).as_machine()
