"""What the shipped recipes reach: said truly in their headers, and reached again by one command.

pytest -m slow tests/test_shipped_recipes.py
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from peftkit.recipes import shipped_recipes
from peftkit.reporting.score_table import format_score

ROOT = Path(__file__).resolve().parent.parent
HEADERS = {one.name: one for one in shipped_recipes()}
MEASURED = sorted((ROOT / "benchmarks" / "results" / "quality").glob("*.json"))


def load_quality() -> Any:
    spec = importlib.util.spec_from_file_location("quality", ROOT / "benchmarks" / "quality.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


QUALITY = load_quality()
OFFLINE = [
    one.file
    for name, one in HEADERS.items()
    if "/" not in name and not name.startswith("pretrain-")
]


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_a_header_says_what_was_measured_of_its_recipe(file: Path) -> None:
    content = json.loads(file.read_text("utf-8"))
    header = HEADERS[content["recipe"]]
    assert content["recipe_sha256"] == QUALITY.recipe_digest(header.file)
    metric, spread = content["headline"], content["spread"]
    assert format_score(metric, spread["tuned"][metric]["mean"]) in header.reaches
    rival = QUALITY.margin(content)
    assert rival is not None
    assert rival[1] > 0
    assert format_score(metric, spread[rival[0]][metric]["mean"]) in header.reaches


def test_the_page_is_made_of_what_was_measured() -> None:
    contents = [json.loads(file.read_text("utf-8")) for file in MEASURED]
    assert QUALITY.PAGE.read_text("utf-8") == f"{QUALITY.HEAD}{QUALITY.table(contents)}\n"


@pytest.mark.slow
def test_no_recipe_that_is_scored_offline_escapes_the_sweep() -> None:
    assert QUALITY.offline_recipes() == OFFLINE


@pytest.mark.slow
@pytest.mark.parametrize("file", OFFLINE, ids=lambda file: file.stem)
def test_a_recipe_beats_its_base_and_its_baselines(file: Path, tmp_path: Path) -> None:
    content, failures = QUALITY.measure(file, (1,), results=tmp_path / "results", runs=tmp_path)
    assert failures == {}
    rival = QUALITY.margin(content)
    assert rival is not None
    assert rival[1] > 0
