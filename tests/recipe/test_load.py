"""A recipe becomes frozen nouns, with absolute paths, or an error with all its problems."""

from __future__ import annotations

from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.errors import RecipeError
from peftkit.recipe.load import load_recipe
from peftkit.recipe.schema import Choice


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = write_files(tmp_path)
    file.write_text(GOOD)
    return file


def test_sections_become_nouns(good: Path) -> None:
    recipe = load_recipe(good)
    folder = good.parent
    assert recipe.name == "good"
    assert recipe.model.path == str(folder / "model")
    files = {"train": str(folder / "rows.jsonl"), "test": str(folder / "more.jsonl")}
    assert recipe.data.source == Choice("json", {"files": files})
    assert recipe.data.splits == {"train": "train", "test": "test"}
    assert recipe.adapter.choice is not None
    assert recipe.adapter.choice.options["r"] == 8
    assert recipe.memory.budget_bytes == 6 << 30
    assert recipe.evaluate is not None
    assert recipe.evaluate.limit == 4
    assert recipe.text == GOOD
    assert recipe.lines["adapter.lora.r"] == 13


def test_paths_do_not_depend_on_where_the_command_runs(
    good: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_recipe(good)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_recipe(good).data == here.data


def test_the_name_is_the_file_s_when_absent(good: Path) -> None:
    good.write_text(GOOD.replace("name: good\n", ""))
    assert load_recipe(good).name == "recipe"


@pytest.mark.parametrize(
    ("written", "num_bytes"),
    [("6 GiB", 6 << 30), ("512MiB", 512 << 20), ("1.5 GB", 1_500_000_000), ("2 TB", 2 * 10**12)],
)
def test_sizes_are_bytes(good: Path, written: str, num_bytes: int) -> None:
    good.write_text(GOOD.replace("6 GiB", written))
    assert load_recipe(good).memory.budget_bytes == num_bytes


@pytest.mark.parametrize(
    ("written", "is_evaluated"),
    [("evaluate: false", False), ("", False), ("evaluate:", False), ("evaluate: true", True),
     ("evaluate: {}", True)],
)  # fmt: skip
def test_evaluation_is_absent_false_or_a_section(
    good: Path, written: str, is_evaluated: bool
) -> None:
    good.write_text(GOOD.replace("evaluate: {split: test, limit: 4}", written))
    assert (load_recipe(good).evaluate is not None) == is_evaluated


ADAPTER = "  lora:\n    r: 8\n    lora_alpha: 16\n    target_modules: all-linear\n"


def test_the_adapter_is_full_or_continued(good: Path) -> None:
    text = GOOD.replace(ADAPTER, "")
    good.write_text(text.replace("adapter:", "adapter: full"))
    assert load_recipe(good).adapter.is_full
    (good.parent / "old").mkdir()
    good.write_text(text.replace("adapter:", "adapter: {from: old}"))
    section = load_recipe(good).adapter
    assert section.continue_from == str(good.parent / "old")
    assert not section.is_full


def test_an_adapter_without_options_takes_its_defaults(good: Path) -> None:
    good.write_text(GOOD.replace(ADAPTER, "  lora:\n"))
    assert load_recipe(good).adapter.choice == Choice("lora", {})


def test_a_hub_id_is_left_alone_and_a_folder_of_that_name_wins(good: Path) -> None:
    good.write_text(GOOD.replace("path: model", "path: owner/name"))
    assert load_recipe(good).model.path == "owner/name"
    (good.parent / "owner" / "name").mkdir(parents=True)
    assert load_recipe(good).model.path == str(good.parent / "owner" / "name")


def test_percentages_and_no_validation_metric_pass(good: Path) -> None:
    good.write_text(GOOD.replace("test: test}\n", "validation: 2.5%, test: test}\n"))
    assert load_recipe(good).data.splits["validation"] == "2.5%"


def test_all_problems_come_at_once_sorted_by_line(good: Path) -> None:
    text = GOOD.replace("r: 8", "r: x").replace("dtype:", "dtyp:").replace("2e-4", "0")
    good.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, ["memory.budget=9"])
    assert [(p.place, p.key) for p in caught.value.problems] == [
        ("override", "memory.budget"), ("line 4", "model.dtyp"), ("line 13", "adapter.lora.r"),
        ("line 18", "method.sft.learning_rate"),
    ]  # fmt: skip
    assert str(caught.value).startswith(f"{good}: 4 problems\n")
