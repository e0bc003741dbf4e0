"""A run that was moved home: its data gone, its base at another place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny
from command_line import Outcome, run_command
from training_fixture import train, write_recipe

BASE = ("--base", "home/base")
VERBS = {
    "generate": ["generate", "home/run", "sort keys", "-o", "max_new_tokens=3", *BASE],
    "untrained": ["generate", "home/run", "sort", "-o", "max_new_tokens=3", "--untrained", *BASE],
    "merge": ["merge", "home/run", "--out", "merged", *BASE],
    "export safetensors": ["export", "home/run", "--to", "safetensors", *BASE],
    "export gguf": ["export", "home/run", "--to", "gguf", *BASE],
    "export vllm": ["export", "home/run", "--to", "vllm", *BASE],
    "export adapter": ["export", "home/run", "--to", "adapter", *BASE],
    "report": ["report", "home/run"],
    "runs": ["runs", "--root", "home"],
    "compare": ["runs", "compare", "home/run", "home/again"],
    "delete": ["runs", "delete", "home/again", "--yes"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on one machine, with a template in a file, and take run and base to another."""
    box = tmp_path_factory.mktemp("box")
    base = tiny.tiny_llama(box / "base", tie_word_embeddings=False)
    rows = tiny.write_jsonl(box / "rows.jsonl", tiny.rows(8))
    (box / "chat.jinja").write_text(tiny.CHAT_TEMPLATE)
    sft = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": 128}
    recipe = write_recipe(
        box / "r.json", base, rows, sft=sft, evaluate=True,
        model={"path": str(base), "dtype": "float32", "chat_template": "chat.jinja"},
    )  # fmt: skip
    train(recipe, box / "run")
    desk = tmp_path_factory.mktemp("desk")
    shutil.move(box / "base", desk / "home" / "base")
    shutil.move(rows, desk / "rows.jsonl")
    shutil.move(box / "run", desk / "home" / "run")
    shutil.rmtree(box)
    return desk


@pytest.fixture
def desk(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "desk")
    shutil.copytree(trained / "home" / "run", tmp_path / "desk" / "home" / "again")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_works_on_it(capfd: pytest.CaptureFixture[str], verb: str) -> None:
    done = run_command(capfd, *VERBS[verb])
    assert done.code == 0, done.err


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    found = run_command(capfd, *arguments)
    assert found.code in (2, 4), found.out
    assert "Traceback" not in found.err
    return found


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("verb", ["generate", "evaluate", "merge", "export gguf"])
def test_a_base_that_is_gone_is_asked_for(capfd: pytest.CaptureFixture[str], verb: str) -> None:
    words = {**VERBS, "evaluate": ["evaluate", "home/run", *rows()]}[verb]
    plain = [word for word in words if word not in BASE]
    assert "say where it is with --base FOLDER" in refused(capfd, *plain).err


def rows() -> list[str]:
    """Say where the rows lie now."""
    return [f"data.source.json.files.{split}=rows.jsonl" for split in ("train", "test")]


def test_scores_need_the_rows_and_say_when_they_are_others(
    capfd: pytest.CaptureFixture[str], desk: Path
) -> None:
    evaluate = ["evaluate", "home/run", "--json", *BASE]
    assert "data.source.json.files" in refused(capfd, *evaluate).out
    here = rows()
    same = run_command(capfd, *evaluate, *here)
    assert same.code == 0, same.err
    assert not any("other rows" in note for note in json.loads(same.out)["notes"])
    tiny.write_jsonl(desk / "rows.jsonl", tiny.rows(9)[1:])
    other = run_command(capfd, *evaluate, *here)
    assert any("other rows" in note for note in json.loads(other.out)["notes"])


def test_other_weights_at_the_new_place_are_refused(
    capfd: pytest.CaptureFixture[str], desk: Path
) -> None:
    tiny.tiny_llama(desk / "home" / "base", seed=1, tie_word_embeddings=False)
    assert "other weights" in refused(capfd, *VERBS["generate"]).err


@pytest.mark.usefixtures("desk")
def test_the_card_names_no_folder_of_the_first_machine(desk: Path) -> None:
    card = (desk / "home" / "run" / "adapter" / "README.md").read_text()
    assert "box" not in card.partition("## Recipe")[0]
