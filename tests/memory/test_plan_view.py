"""`peftkit plan` prints, draws and refuses; the JSON is what its description says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import real_step

from peftkit.errors import UsageError
from peftkit.memory.plan_view import plan_recipe, plot_plan, render_plan
from peftkit.recipe.load import load_recipe


@pytest.fixture(scope="module")
def planned(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("plan")
    import tiny

    data = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(16))
    file = folder / "tiny.yaml"
    file.write_text(tiny.recipe_text(tiny_model, data, sft="use_cpu: false"))
    return plan_recipe(load_recipe(file), gpus="1,2"), file


def test_a_plan_is_shown_with_its_devices(planned) -> None:
    from rich.console import Console

    made, _ = planned
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_plan(made))
    text = console.export_text()
    assert "the longest of 16 rows" in text
    assert "activations" in text
    assert "1 GiB" in text
    assert [verdict.name for verdict in made.verdicts] == ["1 GiB", "2 GiB"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_drawn(planned, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"plan.{ending}"
    plot_plan(planned[0].plan, file)
    start = file.read_bytes()[:5]
    assert start in (b"\x89PNG\r", b"<?xml")


def test_a_picture_needs_a_known_ending(planned, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the ending '.txt' names no picture"):
        plot_plan(planned[0].plan, tmp_path / "plan.txt")


def test_here_and_gpus_exclude_each_other(planned) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        plan_recipe(load_recipe(planned[1]), gpus="8", here=True)


def test_the_command_prints_json(planned) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from peftkit.cli import main; main()", "plan", str(planned[1]),
         "--gpus", "24", "--length", "64", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["length"] == 64
    assert content["devices"][0]["total_bytes"] == 24 << 30
    assert content["peak_bytes"] == sum(term["num_bytes"] for term in content["terms"])
    assert content["unknown"] == []


def test_an_unknown_device_asks_for_its_memory(planned) -> None:
    with pytest.raises(UsageError, match="no device called 'rtx-9999'") as caught:
        plan_recipe(load_recipe(planned[1]), gpus="rtx-9999")
    assert "GiB" in str(caught.value)


def test_this_machine_is_planned_for_itself(planned) -> None:
    recipe = load_recipe(planned[1], ["method.sft.use_cpu=true"])
    made = plan_recipe(recipe, here=True, length=32)
    assert made.plan.device == "cpu"
    assert made.plan.length == 32
    assert made.verdicts[0].fits
    assert real_step.CPU.device == "cpu"
