"""The benchmark runner: a process a cell, a JSON a cell, whatever becomes of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from peftkit import bench as benching
from peftkit.errors import RecipeError, UsageError

GRID = """\
models:
  tiny: {model_type: llama, vocab_size: 8192, hidden_size: 64, intermediate_size: 128,
         num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2}
methods:
  lora:
    model: {dtype: float32}
    adapter: {lora: {r: 4, target_modules: all-linear}}
    method: {sft: {}}
lengths: [64]
micro_batches: [2]
num_steps: 1
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    file = tmp_path / "tiny-grid.yaml"
    file.write_text(GRID, encoding="utf-8")
    return file


ENDED = """\
Traceback (most recent call last):
  File "peftkit/cell.py", line 1, in <module>
    raise ValueError("c")
    ^^^^^^^^^^^^^^^^^^^^^
ValueError: c
"""


def stub_process(monkeypatch: pytest.MonkeyPatch, returncode: int, content: Any = None) -> None:
    """Put a process in the cell's place that ends like this and may write a result."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if content is not None:
            Path(command[4]).write_text(json.dumps(content), encoding="utf-8")
        return subprocess.CompletedProcess(command, returncode, "", ENDED)

    monkeypatch.setattr(benching.subprocess, "run", run)


def test_a_killed_cell_did_not_fit(
    monkeypatch: pytest.MonkeyPatch, grid: Path, tmp_path: Path
) -> None:
    stub_process(monkeypatch, -9)
    (result,) = benching.bench("memory", grid, out=tmp_path / "out")
    assert result.file == tmp_path / "out" / "memory_tiny_lora_64x2.json"
    assert json.loads(result.file.read_text(encoding="utf-8")) == result.content
    assert (result.content["basis"], result.content["fitted"]) == ("measured", False)


def test_a_broken_cell_is_no_result_and_no_end(
    monkeypatch: pytest.MonkeyPatch, grid: Path, tmp_path: Path
) -> None:
    stub_process(monkeypatch, 1)
    (result,) = benching.bench("memory", grid, out=tmp_path)
    assert (result.content["basis"], result.content["fitted"]) == ("broken", None)
    assert result.content["reason"] == "ValueError: c"


def test_an_earlier_result_is_never_taken_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch, grid: Path, tmp_path: Path
) -> None:
    stub_process(monkeypatch, 0, {"basis": "measured", "fitted": True, "name": "x"})
    (first,) = benching.bench("memory", grid, out=tmp_path)
    stub_process(monkeypatch, 1)
    (second,) = benching.bench("memory", grid, out=tmp_path)
    assert first.content["basis"] == "measured" and second.content["basis"] == "broken"


def test_problems_come_before_any_cell(grid: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no benchmark 'weight'"):
        benching.bench("weight", grid, out=tmp_path)
    grid.write_text(GRID.replace("lengths", "length"), encoding="utf-8")
    with pytest.raises(RecipeError, match="did you mean lengths"):
        benching.bench("memory", grid, out=tmp_path)


def content_of(planned: int, real: int, *, runtime: int = 0, baseline: int = 0) -> dict[str, Any]:
    return {
        "predicted": {
            "peak_bytes": planned + runtime,
            "terms": [
                {"name": "base", "num_bytes": planned},
                {"name": "runtime", "num_bytes": runtime},
            ],
        },
        "measured": {"peak_bytes": real + baseline, "baseline_bytes": baseline},
    }


def test_the_error_leaves_out_what_was_there_before_the_model() -> None:
    assert benching.error_of(content_of(103, 100)) == pytest.approx(0.03)
    assert benching.error_of(content_of(97, 100, runtime=500, baseline=400)) == pytest.approx(-0.03)
    assert benching.error_of({"predicted": None, "measured": None}) is None


def test_of_a_card_s_plan_only_the_context_is_left_out() -> None:
    """Torch's allocator holds cuBLAS's workspaces, which are the rest of the runtime."""
    from peftkit.memory.runtime import CONTEXT_BYTES, runtime_of
    from peftkit.planning.devices import find

    runtime = runtime_of(find("h200").as_machine()).num_bytes
    content = content_of(1 << 30, 1 << 30, runtime=runtime)
    content["predicted"]["device"] = "cuda"
    assert benching.metered_bytes(content["predicted"]) == (1 << 30) + runtime - CONTEXT_BYTES
    assert benching.error_of(content) == pytest.approx((runtime - CONTEXT_BYTES) / (1 << 30))


def test_the_table_says_what_was_not_run() -> None:
    from rich.console import Console

    results = [
        benching.Result(Path(), {"name": "ran", "basis": "measured", "fitted": True,
            **content_of(2 << 30, 2 << 30), "measured": {"peak_bytes": 2 << 30, "baseline_bytes": 0,
            "tokens_per_second": 1234.5}}),
        benching.Result(Path(), {"name": "only planned", "basis": "predicted", "fitted": None,
            "predicted": {"peak_bytes": 1 << 30, "terms": []}, "measured": None}),
        benching.Result(Path(), {"name": "ran out", "basis": "measured", "fitted": False,
            "predicted": None, "measured": None}),
    ]  # fmt: skip
    console = Console(width=120)
    with console.capture() as capture:
        console.print(benching.render_results(results))
    lines = capture.get().splitlines()
    assert lines[1].split() == ["ran", "2.00", "GiB", "2.00", "GiB", "+0.0%", "1,234", "yes"]
    assert lines[2].split() == ["only", "planned", "1.00", "GiB", "-", "-", "-", "predicted"]
    assert lines[3].split() == ["ran", "out", "-", "-", "-", "-", "no"]
