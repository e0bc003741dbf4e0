"""Everything that is known before a weight is read, said compactly and refused early."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
import tiny
from rich.console import Console

from peftkit.errors import DataError, ResourceError
from peftkit.job import check_weights_fit, prepare, say_decisions, seed_of
from peftkit.machine import describe_machine
from peftkit.plugins import Decision
from peftkit.progress import Screen
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe
from peftkit.run_dir import RunDir

DECISIONS = [
    Decision("method.sft.bf16", False, "model.dtype is float32; trl's default computes otherwise"),
    Decision("method.sft.use_cpu", True, "the run is on the CPU"),
    Decision("method.sft.logging_steps", 0.005, "200 points"),
    Decision("method.sft.save_total_limit", 2, "the newest, and one more"),
    Decision("method.sft.disable_tqdm", True, "peftkit shows its own bar"),
]


def _screen(width: int = 200, *, is_terminal: bool = False) -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    return Screen(Console(file=file, width=width, force_terminal=is_terminal)), file


def test_decisions_that_change_numbers_come_with_their_reason_and_the_rest_in_one_line() -> None:
    screen, file = _screen()
    say_decisions(DECISIONS, screen)
    lines = file.getvalue().splitlines()
    assert lines == [
        "  decided  method.sft.bf16: false (model.dtype is float32; trl's default computes"
        " otherwise)",
        "  decided  method.sft.use_cpu: true (the run is on the CPU)",
        "  decided  logging_steps 0.005, save_total_limit 2, disable_tqdm true"
        " (reasons in resolved.yaml)",
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_gets_them_folded_below_their_label(width: int) -> None:
    screen, file = _screen(width, is_terminal=True)
    say_decisions(DECISIONS, screen)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert {line[:11] for line in lines} == {"  decided  ", " " * 11}
    folded = " ".join(line.strip() for line in lines)
    assert "method.sft.bf16: false (model.dtype is float32; trl's default computes" in folded


def test_a_job_knows_everything_but_weights(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit import model

    monkeypatch.setattr(model, "load_base", lambda *_, **__: pytest.fail("weights were read"))
    screen, file = _screen()
    job = prepare(load_recipe(tiny_recipe), RunDir(tmp_path / "run"), screen)
    assert job.tokenizer.chat_template == tiny.CHAT_TEMPLATE
    assert len(job.prepared.encoded["train"]) == 16
    assert seed_of(job) == 42
    assert "data     train: 16 of 16 rows, 0 truncated" in file.getvalue()
    assert not job.run_dir.path.exists()


def test_a_run_s_identity_is_its_recipe_and_its_rows(tiny_recipe: Path, tmp_path: Path) -> None:
    def identity(*overrides: str) -> str:
        recipe = load_recipe(tiny_recipe, overrides)
        return prepare(recipe, RunDir(tmp_path / "run"), _screen()[0]).identity

    first = identity()
    assert identity() == first
    assert identity("adapter.lora.r=5") != first
    rows = tmp_path / "rows.jsonl"
    tiny.write_jsonl(rows, tiny.rows(16, seed=2))
    assert identity() != first


def test_rows_that_cannot_be_used_are_refused_before_the_model(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    tiny.write_jsonl(tmp_path / "rows.jsonl", [{"document": "", "summary": "a"}] * 3)
    with pytest.raises(DataError):
        prepare(load_recipe(tiny_recipe), RunDir(tmp_path / "run"), _screen()[0])


def test_a_seed_in_the_recipe_is_the_run_s(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["method.sft.seed=7"])
    assert seed_of(prepare(recipe, RunDir(tmp_path / "run"), _screen()[0])) == 7


@pytest.mark.parametrize("budget", ["100 KiB", "1 MiB"])
def test_weights_are_compared_with_the_budget_by_their_size_on_disk(
    tiny_recipe: Path, tiny_model: Path, budget: str
) -> None:
    recipe = load_recipe(tiny_recipe, [f"memory.budget={budget}"])
    machine = describe_machine()
    num_bytes = os.path.getsize(tiny_model / "model.safetensors")  # noqa: PTH202
    assert 100 << 10 < num_bytes < 1 << 20
    if budget == "1 MiB":
        check_weights_fit(recipe, build(recipe, machine), machine)
        return
    with pytest.raises(ResourceError, match=r"alone take .* more than memory\.budget"):
        check_weights_fit(recipe, build(recipe, machine), machine)
