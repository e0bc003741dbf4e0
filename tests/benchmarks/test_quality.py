"""The benchmark of recipes: every seed once, spreads by the formula, the nearest rival named."""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def quality() -> Any:
    spec = importlib.util.spec_from_file_location("quality", ROOT / "benchmarks" / "quality.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished(out: Path, *, tuned: float, metric: str = "accuracy") -> None:
    out.mkdir(parents=True)
    scores = {
        "headline": metric, "num_rows": 50, "tuned": {metric: tuned}, "base": {metric: 0.2},
        "baselines": {"most_frequent": {metric: 0.5}, "first": {metric: 0.3}},
    }  # fmt: skip
    (out / "scores.json").write_text(json.dumps(scores))
    (out / "measured.json").write_text(json.dumps({"train_seconds": 10.0, "num_steps": 3}))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "recipes" / "classify-pairs.yaml", tmp_path / "small.yaml"))


def test_each_seed_is_trained_once_and_a_failed_one_again(quality, recipe: Path, tmp_path: Path):
    asked = []

    def train(file: Path, seed: int, out: Path) -> str:
        asked.append(seed)
        if seed == 2 and asked.count(2) == 1:
            return "exit code 4"
        finished(out, tuned=0.6 + seed / 10)
        return ""

    places = {"results": tmp_path / "results", "runs": tmp_path / "runs", "train": train}
    _, failures = quality.measure(recipe, (1, 2, 3), **places)
    assert failures == {2: "exit code 4"}
    content, failures = quality.measure(recipe, (1, 2, 3), **places)
    assert failures == {}
    assert asked == [1, 2, 3, 2]
    assert content == json.loads((tmp_path / "results" / "small.json").read_text())
    reached = [0.7, 0.8, 0.9]
    assert content["spread"]["tuned"]["accuracy"] == pytest.approx(
        {
            "mean": statistics.mean(reached), "deviation": statistics.stdev(reached),
            "least": 0.7, "most": 0.9,
        }
    )  # fmt: skip
    name, margin = quality.margin(content)
    assert (name, margin) == ("most_frequent", pytest.approx(0.2))
    line = quality.table([content]).splitlines()[-1]
    assert line == (
        "| small | Accuracy | 3 | 0.800 ± 0.100 | 0.700 to 0.900 | 0.200 | most frequent 0.500"
        " | +0.200 | 0 |"
    )
    recipe.write_text("# Reaches: 0.8.\n" + recipe.read_text())
    quality.measure(recipe, (1,), **places)
    assert asked == [1, 2, 3, 2]
    recipe.write_text(recipe.read_text().replace("lora_alpha: 32", "lora_alpha: 16"))
    quality.measure(recipe, (1,), **places)
    assert asked == [1, 2, 3, 2, 1]


def test_the_nearest_rival_of_a_metric_that_falls(quality) -> None:
    spread = {"tuned": {"perplexity": {"mean": 5.0, "most": 6.0, "least": 4.0}},
              "base": {"perplexity": {"mean": 9.0}}}  # fmt: skip
    assert quality.margin({"headline": "perplexity", "spread": spread}) == ("base", 3.0)
    assert quality.margin({"headline": "perplexity", "spread": {"tuned": {}}}) is None


def test_what_is_trained_by_default_is_scored_and_offline(quality) -> None:
    names = {file.stem for file in quality.offline_recipes()}
    assert {"summarize-lora", "classify-pairs"} <= names
    assert not {"pretrain-lm", "pretrain-bert"} & names
    assert quality.find_recipe("hub/classify-mrpc-bert").is_file()
    with pytest.raises(SystemExit, match="no recipe is called 'nothing'"):
        quality.find_recipe("nothing")
