"""What the shell offers while a command is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.cli import completion


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in ("a.yaml", "b.yml", "rows.jsonl", "more/c.yaml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    for name in ("resolved.yaml", "status.json"):
        (run / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_and_runs(desk: Path) -> None:
    assert completion.complete_recipe("") == ["a.yaml", "b.yml", "more/", "runs/"]
    assert completion.complete_recipe("more/") == ["more/c.yaml"]
    assert completion.complete_recipe(f"{desk}/a") == [f"{desk}/a.yaml"]
    assert completion.complete_recipe("nowhere/x") == []
    assert completion.complete_run("runs/f") == ["runs/first", "runs/first/"]
    assert completion.complete_run_name("fi") == ["first"]
    assert "a.yaml" in completion.complete_recipe_or_run("")
    assert "runs/first" in completion.complete_recipe_or_run("")


def test_names_come_from_the_plugins_and_the_shipped_recipes() -> None:
    assert completion.complete_format("ggu") == ["gguf", "gguf_adapter"]
    assert completion.complete_task("summ") == ["summarize"]
    assert completion.complete_shipped("summarize-l") == ["summarize-lora"]


def test_keys_are_offered_one_part_at_a_time() -> None:
    assert completion.complete_override("meth") == ["method."]
    assert "method.sft." in completion.complete_override("method.")
    assert completion.complete_override("method.sft.learning") == ["method.sft.learning_rate="]
    assert completion.complete_override("na") == ["name="]
    assert completion.complete_override("a.b=") == []
    assert completion.complete_key("adapter.lora.lora_al") == ["adapter.lora.lora_alpha"]
    assert completion.complete_key("nothing.of.this") == []
