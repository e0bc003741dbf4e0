"""Grids: every combination is a cell, every cell's recipe passes the gate, problems have lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftkit.benching.grid import Cell, cells, read_grid
from peftkit.errors import RecipeError
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import parse

GRIDS = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "grids").glob("*.yaml"))

GRID = """\
models:
  llama-tiny: {model_type: llama, hidden_size: 64, num_hidden_layers: 2}
  llama-1b: meta-llama/Llama-3.2-1B
methods:
  lora:
    model: {dtype: bfloat16}
    adapter: {lora: {r: 8}}
    method: {sft: {optim: adamw_torch}}
  full:
    adapter: full
    method: {pretrain_lm: {}}
lengths: [128, 256]
micro_batches: [1, 4]
gpus: [8, 16]
num_steps: 2
"""


@pytest.fixture
def grid_file(tmp_path: Path) -> Path:
    file = tmp_path / "grid.yaml"
    file.write_text(GRID, encoding="utf-8")
    return file


def test_every_combination_is_a_cell_with_a_name_of_its_own(grid_file: Path) -> None:
    made = list(cells(read_grid(grid_file), "g"))
    assert len(made) == 2 * 2 * 2 * 2 * 2 == len({cell.name for cell in made})
    assert made[0].name == "llama-tiny_lora_128x1_8gib"
    assert made[-1].name == "llama-1b_full_256x4_16gib"
    assert made[-1].config["hidden_size"] == 2048, "from the catalogue"
    assert made[0].num_steps == 2 and made[0].grid == "g"


def test_without_gpus_a_cell_is_for_the_device_that_is_here(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(GRID.replace("gpus: [8, 16]\n", ""), encoding="utf-8")
    assert {cell.gpu_gib for cell in cells(read_grid(file), "g")} == {None}


def test_a_cell_survives_json(grid_file: Path) -> None:
    for cell in cells(read_grid(grid_file), "g"):
        assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_the_cells_recipe_is_the_methods_sections_at_the_cells_size(
    grid_file: Path, tmp_path: Path
) -> None:
    made = {cell.name: cell for cell in cells(read_grid(grid_file), "g")}
    data = parse(made["llama-1b_lora_256x4_8gib"].recipe_text(tmp_path), "r").data
    assert data["model"] == {"path": str(tmp_path), "dtype": "bfloat16"}
    assert data["adapter"] == {"lora": {"r": 8}}
    assert data["method"] == {
        "sft": {
            "optim": "adamw_torch",
            "per_device_train_batch_size": 4,
            "max_steps": 3,
            "seed": 0,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "max_length": 256,
        }
    }


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("num_steps", "steps", r"line 15 +steps .*has no such key; did you mean num_steps"),
        ("meta-llama/Llama-3.2-1B", "nobody/none", r"line 3 .*'nobody/none' is not in the cat"),
        ("model_type: llama, ", "", r"line 2 .*has no model_type"),
        ("adapter: full", "sources: full", r"line 10 .*no such section"),
        ("    adapter: full\n", "", r"has no adapter"),
        ("{pretrain_lm: {}}", "pretrain_lm", r"names no training method"),
        ("[1, 4]", "[1, 0]", r"line 13 .*0 is not above 0"),
        ("[128, 256]", "[]", r"line 12 .*is empty"),
        ("[128, 256]", "[many]", r"line 12 .*'many'"),
        ("llama-1b:", "'llama/1b':", r"cannot name a file"),
        ("models:", "model:", r"models"),
    ],
)
def test_problems_have_lines(grid_file: Path, before: str, after: str, message: str) -> None:
    assert before in GRID
    grid_file.write_text(GRID.replace(before, after), encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        read_grid(grid_file)


def test_all_problems_at_once(grid_file: Path) -> None:
    text = GRID.replace("[1, 4]", "[0]").replace("[8, 16]", "[-8]")
    grid_file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_grid(grid_file)
    assert [problem.line for problem in caught.value.problems] == [13, 14]


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_every_cell_of_the_shipped_grids_passes_the_recipes_gate(
    file: Path, tmp_path: Path
) -> None:
    for cell in cells(read_grid(file), file.stem):
        recipe = tmp_path / f"{cell.name}.yaml"
        (tmp_path / "config.json").write_text(json.dumps(cell.config), encoding="utf-8")
        recipe.write_text(cell.recipe_text(tmp_path), encoding="utf-8")
        assert load_recipe(recipe).name == "cell"


def test_the_shipped_grids_are_as_large_as_promised() -> None:
    sizes = {file.stem: len(list(cells(read_grid(file), file.stem))) for file in GRIDS}
    assert sizes["cpu-memory"] >= 30
    assert sizes["gpu-memory"] + sizes["gpu-70b"] >= 40
    assert sizes["gpu-edges"] == 2 * 2 * 7


@pytest.mark.parametrize("name", ["dpo", "reward", "grpo", "classify"])
def test_a_method_of_other_rows_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(GRID.replace("sft: {optim: adamw_torch}", f"{name}: {{}}"), encoding="utf-8")
    with pytest.raises(RecipeError, match=f"method.{name}.*trains on rows of its own"):
        read_grid(file)
