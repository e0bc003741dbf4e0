"""The benchmark page: every result a row, predictions and breakages named as such."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def report() -> Any:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        spec.loader.exec_module(module)
    return module


GIB = 1 << 30


def cell(kind: str, method: str, **content: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": kind,
        "grid": "g",
        "name": method,
        "cell": {"model": "m", "method": method, "length": 4096, "micro_batch": 2, "gpu_gib": 16},
        "device": {"name": "a card", "type": "cuda", "total_bytes": 16 * GIB},
        "versions": {"torch": "2", "transformers": "5", "peft": "0.2", "trl": "1"},
        "basis": "measured",
        "fitted": True,
        "predicted": {"peak_bytes": 11 * GIB, "terms": [{"name": "runtime", "num_bytes": GIB}]},
        "measured": {"peak_bytes": 10 * GIB, "baseline_bytes": 0, "tokens_per_second": 1234.0},
        **content,
    }


SPEED = {"tokens_per_second": 1500.0}
CELLS = [
    cell("memory", "exact"),
    cell("memory", "ran-out", fitted=False, measured=None),
    cell("memory", "planned", basis="predicted", fitted=None, measured=None),
    cell("memory", "broke", basis="broken", fitted=None, measured=None, predicted=None),
    cell("speed", "fast", predicted={"peak_bytes": 1, "terms": [], "speed": SPEED}),
]  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for content in CELLS:
        file = tmp_path / "sub" / f"{content['kind']}_{content['name']}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "startup.json").write_text('{"runs": 10}', encoding="utf-8")
    return tmp_path


def test_the_page(report: Any, results: Path) -> None:
    page = report.make_page(report.load_results(results))
    assert "| m | exact | 2 x 4,096 | 16 GiB | 10.00 GiB | 10.00 GiB | +0.00% | fitted |" in page
    assert "| m | ran-out | 2 x 4,096 | 16 GiB | 10.00 GiB | - | - | ran out |" in page
    assert "| m | planned | 2 x 4,096 | 16 GiB | 10.00 GiB | - | - | *predicted* to fit |" in page
    assert "| m | fast | 2 x 4,096 | 16 GiB | 1,500 | 1,234 | fitted |" in page
    assert "broke |" not in page
    assert (
        "4 cells; 1 measured: mean error 0.00%, worst 0.00%; 1 planned to fit ran out of memory;"
        " 1 predicted only; 1 broken and left out. Measured on a card with torch 2," in page
    )


def test_the_picture_needs_a_measurement(report: Any, results: Path, tmp_path: Path) -> None:
    grids = report.load_results(results)
    file = tmp_path / "images" / "x.png"
    assert report.plot_errors(grids, file) and file.stat().st_size > 1000
    assert not report.plot_errors({"memory/g": [CELLS[2]]}, tmp_path / "y.png")
