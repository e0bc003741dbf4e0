"""The commands about recipes: what they print for people and for machines, and their codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from command_line import run_command

from peftkit.doctor import Examination, Finding
from peftkit.recipe.load import load_recipe


@pytest.fixture
def peftkit(capfd: pytest.CaptureFixture[str]):
    return lambda *arguments: run_command(capfd, *arguments)


@pytest.fixture
def wrong(tiny_recipe: Path) -> Path:
    file = tiny_recipe.with_name("wrong.yaml")
    text = tiny_recipe.read_text().replace("r: 4", "rr: 4").replace("max_steps", "max_step")
    file.write_text(text)
    return file


def test_init_writes_a_recipe_that_passes_the_gate(peftkit, tmp_path: Path) -> None:
    rows = tiny.write_jsonl(tmp_path / "articles.jsonl", tiny.rows(40))
    out = tmp_path / "mine.yaml"
    found = peftkit("init", rows, "--out", out)
    assert found.code == 0
    assert str(out) in found.out
    assert load_recipe(out).data.task.name == "summarize"
    assert peftkit("check", out).code == 0
    again = peftkit("init", rows, "--out", out)
    assert again.code == 2
    assert again.refusal.endswith("try: delete it first, or write another: --out FILE.yaml")
    other = out.with_name("other.yaml")
    assert peftkit("init", rows, "--out", other).code == 0
    out.unlink()
    assert peftkit("init", rows, "--out", out).code == 0
    assert out.read_text() == other.read_text().replace("name: other", "name: mine")


def test_init_takes_columns_by_name(peftkit, tmp_path: Path) -> None:
    renamed = [{"a": row["document"], "b": row["summary"]} for row in tiny.rows(40)]
    rows = tiny.write_jsonl(tmp_path / "odd.jsonl", renamed)
    out = tmp_path / "odd.yaml"
    options = ("--task", "summarize", "--map", "document=a", "--map", "summary=b")
    assert peftkit("init", rows, "--out", out, *options).code == 0
    task = load_recipe(out).data.task
    assert (task.options["document"], task.options["summary"]) == ("a", "b")


def test_check_shows_every_problem_of_every_file_with_its_line(
    peftkit, tiny_recipe: Path, wrong: Path
) -> None:
    found = peftkit("check", tiny_recipe, wrong, wrong.with_name("absent.yaml"))
    assert found.code == 2
    assert found.err == ""
    lines = found.out.splitlines()
    assert lines[0] == f"{tiny_recipe}: ok"
    assert lines[1] == f"{wrong}: 2 problems"
    assert lines[2].split()[:3] == ["line", "10", "adapter.lora.rr"]
    assert "did you mean max_steps?" in lines[3]
    assert lines[4] == f"{wrong.with_name('absent.yaml')}: 1 problem"
    folder = peftkit("check", wrong.parent)
    assert folder.code == 2
    assert folder.out.splitlines()[0] == f"{tiny_recipe}: ok"


def test_check_prints_problems_as_data(peftkit, tiny_recipe: Path, wrong: Path) -> None:
    assert json.loads(peftkit("check", tiny_recipe, "--json").out) == []
    found = peftkit("check", wrong, "--json")
    assert found.code == 2
    problems = json.loads(found.out)
    assert [set(problem) for problem in problems] == [
        {"file", "line", "key", "problem", "suggestion"}
    ] * 2
    assert (problems[0]["line"], problems[0]["key"]) == (10, "adapter.lora.rr")


def test_check_takes_overrides_through_the_same_gate(peftkit, tiny_recipe: Path) -> None:
    assert peftkit("check", tiny_recipe, "adapter.lora.r=8").code == 0
    found = peftkit("check", tiny_recipe, "adapter.lora.r=0")
    assert found.code == 2
    assert "override  adapter.lora.r  " in found.out
    assert peftkit("check", "adapter.lora.r=8").refusal.startswith("adapter.lora.r=8 is no recipe")
    odd = tiny_recipe.rename(tiny_recipe.with_name("a=b.yaml"))
    assert peftkit("check", odd).out == f"{odd}: ok\n"


def test_check_build_finds_what_only_the_native_objects_know(peftkit, tiny_recipe: Path) -> None:
    text = tiny_recipe.read_text().replace("max_steps: 4", "debug: nonsense")
    tiny_recipe.write_text(text)
    assert peftkit("check", tiny_recipe).code == 0
    found = peftkit("check", tiny_recipe, "--build")
    assert found.code == 2
    assert "nonsense" in found.out


def test_check_build_says_what_upstream_will_drop(peftkit, tiny_recipe: Path) -> None:
    shown = peftkit("check", "--build", tiny_recipe, "method.sft.truncation_mode=keep_end")
    assert (shown.code, shown.err) == (0, "")
    assert f"{tiny_recipe}: ok\nhint: {tiny_recipe}: method.sft.truncation_mode: " in shown.out


def test_a_plugin_that_is_missing_does_not_end_the_check(
    peftkit, tiny_recipe: Path, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftkit.errors import UsageError

    def fail(*_: object) -> None:
        raise UsageError("the plugin is broken", hint="update it")

    monkeypatch.setattr("peftkit.check.build", fail)
    problems = json.loads(peftkit("check", "--build", tiny_recipe, wrong, "--json").out)
    assert [p["problem"] for p in problems if p["file"] == str(tiny_recipe)] == [
        "the plugin is broken"
    ]
    assert len(problems) == 3


def test_explain_says_the_same_to_both_readers(peftkit) -> None:
    found = peftkit("explain", "adapter.lora.lora_alpha")
    content = json.loads(peftkit("explain", "adapter.lora.lora_alpha", "--json").out)
    assert (found.code, content["key"]) == (0, "adapter.lora.lora_alpha")
    for value in (content["key"], content["type"], content["default"], content["doc"]):
        assert value in " ".join(found.out.split())
    schema = json.loads(peftkit("explain", "--json-schema").out)
    assert schema["title"] == "peftkit recipe"
    assert peftkit("explain", "adaptr").refusal.endswith("did you mean adapter?")


def test_recipes_are_listed_and_copied(peftkit, tmp_path: Path) -> None:
    listed = json.loads(peftkit("recipes", "--json").out)
    assert "summarize-lora" in {recipe["name"] for recipe in listed}
    found = peftkit("recipes", "summarize-lora", "--to", tmp_path)
    copy = tmp_path / "summarize-lora.yaml"
    assert found.out == f"wrote {copy}\n"
    assert peftkit("check", copy).code == 0
    again = peftkit("recipes", "summarize-lora", "--to", tmp_path)
    assert again.code == 0, "the same file is there"
    copy.write_text("name: mine\n")
    assert "is another recipe" in peftkit("recipes", "summarize-lora", "--to", tmp_path).refusal
    assert copy.read_text() == "name: mine\n"
    assert "did you mean summarize-lora?" in peftkit("recipes", "sumarize-lora").refusal


def test_plugins_are_listed(peftkit) -> None:
    names = {(info["group"], info["name"]) for info in json.loads(peftkit("plugins", "--json").out)}
    assert names >= {("sources", "json"), ("tasks", "summarize"), ("adapters", "lora")}
    assert "summarize" in peftkit("plugins").out


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warn", 0), ("no", 0), ("fail", 5)])
def test_doctor_leaves_with_5_where_no_run_works(
    peftkit, monkeypatch: pytest.MonkeyPatch, state: str, code: int
) -> None:
    asked = []

    def examine(*, hub: bool) -> Examination:
        asked.append(hub)
        return Examination((Finding("stack", "torch", state, "why"),))

    monkeypatch.setattr("peftkit.doctor.doctor", examine)
    assert peftkit("doctor").code == code
    found = peftkit("doctor", "--hub", "--json")
    assert found.code == code
    assert json.loads(found.out)["findings"][0]["state"] == state
    assert asked == [False, True]
