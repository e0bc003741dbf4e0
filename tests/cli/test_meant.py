"""What people type in place of the right command: the answer names one that works."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import tiny
import typer
from command_line import Outcome, run_command

from peftkit.cli.app import app
from peftkit.errors import PeftkitError
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import read_yaml

SFT = "method.sft"
TYPED = {
    # another tool's verbs
    "train r.yaml": "run r.yaml",
    "finetune r.yaml": "run r.yaml",
    "fine-tune r.yaml": "run r.yaml",
    "sft r.yaml": "run r.yaml",
    "resume runs/tiny": "run runs/tiny",
    "train --config r.yaml": "run r.yaml",
    "runn r.yaml": "run r.yaml",
    "chat": "generate runs/tiny",
    "chat runs/tiny": "generate runs/tiny",
    "gen runs/tiny hello": "generate runs/tiny hello",
    "predict runs/tiny hello": "generate runs/tiny hello",
    "inference runs/tiny --prompt hello": "generate runs/tiny hello",
    "eval runs/tiny": "evaluate runs/tiny",
    "score runs/tiny": "evaluate runs/tiny",
    "validate r.yaml": "check r.yaml",
    "lint r.yaml": "check r.yaml",
    "list": "runs",
    "ls": "runs",
    "status": "runs",
    "compare tiny other": "runs compare runs/tiny runs/other",
    "diff runs/tiny runs/other": "runs compare runs/tiny runs/other",
    "runs diff tiny other": "runs compare runs/tiny runs/other",
    "runs rm other --yes": "runs delete runs/other --yes",
    "version": "--version",
    "help": "--help",
    "-help": "--help",
    "train r.yaml --help": "run --help",
    "score -h": "evaluate --help",
    "convert runs/tiny --to safetensors": "export runs/tiny --to safetensors",
    "safetensors runs/tiny": "export runs/tiny --to safetensors",
    "fuse runs/tiny --out merged": "merge runs/tiny --out merged",
    "estimate r.yaml": "plan r.yaml",
    "vram r.yaml": "plan r.yaml",
    "dry-run r.yaml": "run r.yaml --dry-run",
    "templates": "recipes",
    "examples summarize-lora": "recipes summarize-lora",
    "summarize-lora": "recipes summarize-lora",
    "preview r.yaml": "data r.yaml",
    "create rows.jsonl": "init rows.jsonl",
    "plugin": "plugins",
    "schema method.sft": "explain method.sft",
    # a file where a verb belongs, or the file of another verb
    "r.yaml": "run r.yaml",
    "rows.jsonl": "init rows.jsonl",
    "runs/tiny": "generate runs/tiny",
    "run rows.jsonl": "init rows.jsonl",
    "check rows.jsonl": "init rows.jsonl",
    "run r": "run r.yaml",
    "run rr.yaml": "run r.yaml",
    "run summarize-lora": "recipes summarize-lora",
    "run": "run r.yaml",
    "plan runs/tiny": "plan runs/tiny/resolved.yaml",
    "data runs/tiny": "data runs/tiny/resolved.yaml",
    "evaluate r.yaml": "evaluate runs/tiny",
    "evaluate untrained.yaml": "run untrained.yaml",
    "evaluate tiny": "evaluate runs/tiny",
    "generate tiny hello": "generate runs/tiny hello",
    "init r.yaml": "check r.yaml",
    "merge tiny --out merged": "merge runs/tiny --out merged",
    # another tool's options
    "run r.yaml --epochs 3": f"run r.yaml {SFT}.num_train_epochs=3",
    "run r.yaml --learning-rate 1e-4": f"run r.yaml {SFT}.learning_rate=1e-4",
    "run r.yaml --lr=1e-4 --output-dir x": f"run r.yaml {SFT}.learning_rate=1e-4 --out x",
    "run r.yaml --lr 1e-4 --bs 1": (
        f"run r.yaml {SFT}.learning_rate=1e-4 {SFT}.per_device_train_batch_size=1"
    ),
    "run r.yaml --max_steps 2": f"run r.yaml {SFT}.max_steps=2",
    "run r.yaml --batch-size 1": f"run r.yaml {SFT}.per_device_train_batch_size=1",
    "run r.yaml --lora-rank 2": "run r.yaml adapter.lora.r=2",
    "run r.yaml --name x": "run r.yaml name=x",
    "run r.yaml --resume": "run r.yaml",
    "run r.yaml --use-cpu": f"run r.yaml {SFT}.use_cpu=true",
    "plan r.yaml --gpu 24": "plan r.yaml --gpus 24",
    "fit r.yaml --gpus 24": "fit r.yaml --gpu 24",
    "export runs/tiny --format safetensors": "export runs/tiny --to safetensors",
    "generate runs/tiny hello --max-new-tokens 2": "generate runs/tiny hello -o max_new_tokens=2",
    "generate runs/tiny --input rows.jsonl": "generate runs/tiny --file rows.jsonl",
    "run --out x r.yaml --epochs 3": f"run r.yaml {SFT}.num_train_epochs=3 --out x",
    "check --build r.yaml lr=1e-4": f"check r.yaml {SFT}.learning_rate=1e-4 --build",
    # keys in other words
    "run r.yaml epochs=3": f"run r.yaml {SFT}.num_train_epochs=3",
    "run r.yaml sft.learning_rate=1e-4": f"run r.yaml {SFT}.learning_rate=1e-4",
    "run r.yaml learning_rate=1e-4": f"run r.yaml {SFT}.learning_rate=1e-4",
    "run r.yaml training.lr=1e-4": f"run r.yaml {SFT}.learning_rate=1e-4",
    "run r.yaml lora.r=2": "run r.yaml adapter.lora.r=2",
    "run r.yaml rank=2": "run r.yaml adapter.lora.r=2",
    "plan r.yaml max_seq_length=64": f"plan r.yaml {SFT}.max_length=64",
    "check r.yaml lr=1e-4": f"check r.yaml {SFT}.learning_rate=1e-4",
}
TAKES_RECIPES = {"run", "check", "plan", "data", "fit"}


def lay_out(folder: Path, run: Path, model: Path) -> None:
    """Fill a folder as a person has it: recipes, rows, and two finished runs."""
    for name in ("tiny", "other"):
        shutil.copytree(run, folder / "runs" / name)
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(12))
    for file, name in (("r", "tiny"), ("untrained", "untrained")):
        (folder / f"{file}.yaml").write_text(tiny.recipe_text(model, rows, name=name))
    os.utime(folder / "runs" / "other", (1, 1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_model: Path) -> Path:
    """Return such a folder, which no command of a test changes."""
    folder = tmp_path_factory.mktemp("desk")
    lay_out(folder, tiny_run, tiny_model)
    return folder


@pytest.fixture
def desk(tiny_run: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return such a folder to change."""
    lay_out(tmp_path, tiny_run, tiny_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leave_one_recipe(typed: str, desk: Path) -> None:
    """Without a name the one recipe of a folder is meant; two are not clear."""
    if typed == "run":
        (desk / "untrained.yaml").unlink()


def expand(command: str) -> list[str]:
    return [{"-o": "--option"}.get(word, word) for word in shlex.split(command)]


def answer_of(refused: Outcome) -> list[str]:
    assert refused.code in (2, 3, 4)
    assert "Traceback" not in refused.err
    tried = [line for line in refused.err.splitlines() if line.startswith("  try: peftkit ")]
    assert len(tried) == 1, refused.err
    return shlex.split(tried[0].removeprefix("  try: peftkit "))


@pytest.mark.parametrize("typed", TYPED)
def test_each_is_refused_with_the_command_that_was_meant(
    capfd: pytest.CaptureFixture[str],
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
) -> None:
    monkeypatch.chdir(shared)
    if typed == "run":  # without a name the one recipe of a folder is meant; two are not clear
        shutil.copy(shared / "r.yaml", tmp_path)
        monkeypatch.chdir(tmp_path)
    meant = answer_of(run_command(capfd, *typed.split()))
    assert meant == expand(TYPED[typed])
    check_is_sound(meant)


def check_is_sound(words: list[str]) -> None:
    """Parse a command, and load its recipe or find its run."""
    verb, *rest = words
    if verb.startswith("-") or "--help" in rest:
        return
    command = typer.main.get_command(app).commands[verb]
    if hasattr(command, "commands"):
        command = command.commands[rest.pop(0)] if rest else command
    given = command.make_context(verb, list(rest)).params
    if verb in TAKES_RECIPES:
        file, *keys = [
            word for word in rest if not word.startswith("-") and word not in ("24", "x")
        ]
        if not Path(file, "resolved.yaml").is_file():
            assert load_recipe(Path(file), keys)
    for name in ("run", "runs", "paths"):
        named = given.get(name) or ()
        for path in [named] if isinstance(named, (str, Path)) else named:
            assert Path(path, "resolved.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("typed", TYPED)
def test_each_answer_works_when_pasted(
    capfd: pytest.CaptureFixture[str], desk: Path, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_one_recipe(typed, desk)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    pasted = answer_of(run_command(capfd, *typed.split()))
    if pasted[:2] == ["run", "r.yaml"]:
        shutil.rmtree(desk / "runs" / "tiny")  # a finished run of another recipe stays as it is
    done = run_command(capfd, *pasted)
    assert done.code == 0, done.err


def test_what_is_not_clear_is_answered_as_before(
    capfd: pytest.CaptureFixture[str], desk: Path
) -> None:
    assert "try: peftkit --help" in run_command(capfd, "xyzzy").err
    assert "try:" not in run_command(capfd, "run", "r.yaml", "method.sft.qwertz=1").err
    two = run_command(capfd, "plan")
    assert "try: peftkit recipes" in two.err, "of two recipes neither is meant"
    (desk / "runs" / "tiny" / "resolved.yaml").write_text("a: [1")
    assert "Traceback" not in run_command(capfd, "plan", "runs/tiny").err


def test_what_is_typed_wins_over_its_rival_in_the_file(desk: Path) -> None:
    file = desk / "r.yaml"
    recipe = read_yaml(file).data
    del recipe["method"]["sft"]["max_steps"]
    recipe["method"]["sft"] |= {"num_train_epochs": 3, "bf16": True, "save_steps": 5}
    file.write_text(json.dumps(recipe))
    typed = ["max_steps=20", "fp16=true", "save_strategy=epoch"]
    loaded = load_recipe(file, [f"method.sft.{one}" for one in typed])
    options = loaded.method.options
    assert not {"num_train_epochs", "bf16", "save_steps"} & {*options}
    assert (options["max_steps"], options["fp16"], options["save_strategy"]) == (20, True, "epoch")
    assert loaded.replaced == (
        "method.sft.num_train_epochs: left out, was 3 (method.sft.max_steps was typed)",
        "method.sft.bf16: left out, was true (method.sft.fp16 was typed)",
        "method.sft.save_steps: left out, was 5 (method.sft.save_strategy was typed)",
    )
    with pytest.raises(PeftkitError, match="silently win"):  # both typed: neither is a slip
        load_recipe(file, ["method.sft.max_steps=20", "method.sft.num_train_epochs=2"])
    assert "num_train_epochs" in load_recipe(file, ["method.sft.max_steps=-1"]).method.options


def test_null_takes_a_key_away(desk: Path) -> None:
    file = desk / "r.yaml"
    recipe = read_yaml(file).data
    recipe["method"]["sft"] |= {"learning_rate": 1e-3, "max_length": 99}
    recipe["early_stopping"] = None
    file.write_text(json.dumps({**recipe, "memory": {"budget": "3 GiB"}}))
    nulls = ("method.sft.learning_rate", "memory", "name", "data.splits.test", "evaluate")
    loaded = load_recipe(file, [f"{key}=null" for key in nulls])
    assert "learning_rate" not in loaded.method.options
    assert (loaded.memory.budget_bytes, loaded.name, loaded.evaluate) == (None, "r", None)
    assert {*loaded.data.splits} == {"train"}
    lengths = load_recipe(file, ["method.sft.max_length=null"]).method.options
    assert lengths["max_length"] is None, "null is a value of this option: no limit"
    dora = load_recipe(file, ["adapter.lora=null", "adapter.oft={target_modules: all-linear}"])
    assert dora.adapter.choice is not None
    assert dora.adapter.choice.name == "oft"
    with pytest.raises(PeftkitError, match="has no such key"):
        load_recipe(file, ["method.sft.lerning_rate=null"])
