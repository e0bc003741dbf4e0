"""The commands about memory: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plan_fixture import GIB, linear_plan
from typer.testing import CliRunner

from peftkit.cli import app
from peftkit.planning import search
from peftkit.recipe.load import load_recipe

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _planner(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(recipe: Any, **_: Any) -> Any:
        rows = int(recipe.method.options["per_device_train_batch_size"])
        return linear_plan(fixed=GIB, per_token=1 << 20, rows=rows, length=1024)

    monkeypatch.setattr(search, "plan", plan)


def call(*arguments: str) -> Any:
    return RUNNER.invoke(app, list(arguments), catch_exceptions=False)


def test_fit_prints_proposals_and_writes_the_first(tiny_recipe: Path) -> None:
    out = tiny_recipe.with_name("fitted.yaml")
    free = "method.sft.per_device_train_batch_size"
    done = call("fit", str(tiny_recipe), "--gpu", "2.5", "--free", free, "--write", str(out))
    assert "does not fit 2.5 GiB" in done.output
    assert "per_device_train_batch_size=1" in done.output
    assert f"wrote {out}" in done.output
    assert load_recipe(out).method.options["per_device_train_batch_size"] == 1


def test_fit_json(tiny_recipe: Path) -> None:
    done = call("fit", str(tiny_recipe), "--gpu", "4090", "--json")
    content = json.loads(done.output)
    assert content["device"]["name"] == "NVIDIA GeForce RTX 4090"
    assert content["fits_now"] is True


@pytest.mark.parametrize(("gpu", "code"), [("8,16", 2), ("nothing", 2), ("0.5", 5)])
def test_fit_refuses(tiny_recipe: Path, gpu: str, code: int) -> None:
    from peftkit.errors import PeftkitError

    with pytest.raises(PeftkitError) as caught:
        call("fit", str(tiny_recipe), "--gpu", gpu)
    assert caught.value.exit_code == code


def test_bench_runs_a_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from peftkit import bench

    result = bench.Result(
        tmp_path / "r.json",
        {"name": "a-cell", "basis": "predicted", "fitted": None, "measured": None},
    )
    asked: list[Any] = []

    def run(kind: str, grid: Path, *, out: Path) -> list[Any]:
        asked.append((kind, grid, out))
        return [result]

    monkeypatch.setattr(bench, "bench", run)
    done = call("bench", "memory", "grids/small.yaml")
    assert asked == [("memory", Path("grids/small.yaml"), Path("bench/small"))]
    assert "a-cell" in done.output and "predicted" in done.output
    done = call("bench", "speed", "g.yaml", "--out", "here", "--json")
    assert asked[1] == ("speed", Path("g.yaml"), Path("here"))
    assert json.loads(done.output)[0]["name"] == "a-cell"
