"""A run that goes on under another stack says so, and keeps what it began under."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from rich.console import Console
from training_fixture import cut_back, planned_only_within_a_budget

from peftkit.recipe.load import load_recipe
from peftkit.run import run
from peftkit.rundir.drift import drift, with_earlier
from peftkit.rundir.paths import RunDir, write_json

NOW = {"python": "3.11.7", "device": "cpu", "packages": {"torch": "2.13", "peft": "0.21"}}


def test_what_differs_is_named_and_kept() -> None:
    assert list(drift(NOW, NOW)) == list(drift({}, NOW)) == []
    earlier = {**NOW, "device": "H200", "packages": {"torch": "2.12", "liger": "1"}}
    assert list(drift(earlier, NOW)) == [
        "device: H200 -> cpu", "liger: 1 -> absent", "peft: absent -> 0.21", "torch: 2.12 -> 2.13",
    ]  # fmt: skip
    assert with_earlier(NOW, NOW, has_drifted=False) == NOW
    kept = with_earlier(NOW, earlier, has_drifted=True)
    assert kept["earlier"] == [earlier]
    assert with_earlier(NOW, kept, has_drifted=False)["earlier"] == [earlier]


def test_a_resumed_run_says_what_changed(tiny_run: Path, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(tiny_run, run_dir.path)
    cut_back(run_dir, step=99)  # its training is over, and not what it left
    stack = run_dir.read_json(run_dir.versions)
    write_json(run_dir.versions, {**stack, "packages": {**stack["packages"], "torch": "1.0"}})
    recipe = load_recipe(run_dir.resolved)
    console = Console(record=True, width=200, file=io.StringIO())
    with planned_only_within_a_budget(recipe):
        run(recipe, out=run_dir.path, console=console)
    assert f"  changed  torch: 1.0 -> {stack['packages']['torch']}" in console.export_text()
    (earlier,) = run_dir.read_json(run_dir.versions)["earlier"]
    assert earlier["packages"]["torch"] == "1.0"
