"""What a run left is whole, or made again, or refused: nothing damaged is taken for good."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from command_line import run_command
from rich.console import Console
from training_fixture import planned_only_within_a_budget, sha256, train, write_recipe

from peftkit.errors import ArtefactError, UsageError
from peftkit.recipe.load import load_recipe
from peftkit.run import run
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import read_status
from peftkit.rundir.whole import find_lost

SFT = {
    "learning_rate": 1e-2, "max_steps": 2, "per_device_train_batch_size": 2, "max_length": 64,
    "save_steps": 1, "save_total_limit": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDir:
    """Return a finished run with scores, `r.json` beside it; nobody changes it."""
    folder = tmp_path_factory.mktemp("whole")
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(6))
    recipe = write_recipe(folder / "r.json", tiny_model, rows, sft=SFT, evaluate=True)
    return train(recipe, folder / "run")


@pytest.fixture
def copied(whole: RunDir, tmp_path: Path) -> RunDir:
    """Return a copy of it to damage."""
    shutil.copytree(whole.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.fixture
def beside(copied: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in the folder of the copy."""
    monkeypatch.chdir(copied.path.parent)


def again(whole: RunDir, copied: RunDir) -> str:
    """Run the same recipe again, and return what was said."""
    recipe = load_recipe(whole.path.parent / "r.json")
    console = Console(record=True, width=200, file=io.StringIO())
    with planned_only_within_a_budget(recipe):
        run(recipe, out=copied.path, console=console)
    return console.export_text()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def to_link(file: Path) -> None:
    other = file.with_name("linked-to")
    file.rename(other)
    cut(other)
    file.symlink_to(other)


def wrong_types(file: Path) -> None:
    """Give every value another type, as no version of ours wrote it."""
    if file.suffix != ".json":
        file.write_text("- 1\n" * 3)
        return
    wrong = {dict: [1], list: "x", str: [2], bool: "x", type(None): {"a": []}}
    content = json.loads(file.read_text())
    content.pop("seal", None)
    file.write_text(json.dumps({key: wrong.get(type(v), ["n"]) for key, v in content.items()}))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "flipped": flip,
    "binary": lambda file: file.write_bytes(bytes(range(256)) * 3),
    "deep": lambda file: file.write_text("[" * 100_000),
    "a folder": to_folder,
    "a link": to_link,
    "wrong types": wrong_types,
}


def test_weights_that_changed_are_made_again_from_the_last_checkpoint(
    whole: RunDir, copied: RunDir
) -> None:
    flip(copied.adapter / "adapter_model.safetensors")
    said = again(whole, copied)
    assert "adapter_model.safetensors has another sha256 than when it was written" in said
    assert "it is made again" in said
    assert sha256(copied) == sha256(whole)
    assert f"already finished: {copied.adapter}" in again(whole, copied)


def test_a_report_that_a_kill_left_out_is_written_without_training(
    whole: RunDir, copied: RunDir
) -> None:
    copied.report.unlink()
    before = copied.measured.stat().st_mtime_ns, copied.scores.stat().st_mtime_ns
    assert "lost     report.html is missing" in again(whole, copied)
    assert copied.report.read_text().endswith("</html>\n")
    assert (copied.measured.stat().st_mtime_ns, copied.scores.stat().st_mtime_ns) == before


def test_weights_that_nothing_brings_back_are_refused_until_they_are_deleted(
    whole: RunDir, copied: RunDir
) -> None:
    shutil.rmtree(copied.checkpoints)
    flip(copied.adapter / "adapter_model.safetensors")
    with pytest.raises(ArtefactError, match="no whole checkpoint is of the training's end"):
        again(whole, copied)
    shutil.rmtree(copied.adapter)
    again(whole, copied)
    assert sha256(copied) == sha256(whole)


def test_a_state_that_is_lost_is_written_again_from_what_is_there(
    whole: RunDir, copied: RunDir
) -> None:
    copied.status.unlink()
    copied.resolved.unlink()
    before = copied.measured.stat().st_mtime_ns
    again(whole, copied)
    assert read_status(copied) == read_status(whole)
    assert copied.measured.stat().st_mtime_ns == before


def test_another_run_is_refused_though_its_recipe_is_lost(whole: RunDir, copied: RunDir) -> None:
    copied.resolved.unlink()
    with pytest.raises(UsageError, match="is another run"):
        train(whole.path.parent / "r.json", copied.path, "adapter.lora.r=2")


def _files(run_dir: RunDir) -> list[str]:
    return sorted(
        file.relative_to(run_dir.path).as_posix()
        for file in run_dir.path.rglob("*")
        if file.is_file() and file.name != ".lock"
    )


READERS = {
    "evaluate": ("evaluate", "run", "--json"),
    "generate": ("generate", "run", "read a file", "-o", "max_new_tokens=2"),
    "merge": ("merge", "run", "--out", "merged", "--no-verify"),
    "export": ("export", "run", "--to", "adapter", "--out", "exported"),
    "report": ("report", "run"),
    "runs": ("runs", "--root", "."),
    "compare": ("runs", "--root", ".", "compare", "run", "other"),
}
WEIGHTS = ("evaluate", "generate", "merge", "export")


def check_readers(
    capfd: pytest.CaptureFixture[str], run_dir: RunDir, name: str, verbs: tuple[str, ...]
) -> None:
    """Have verbs read a damaged run: none is a bug of ours, and none takes damaged weights."""
    for verb in verbs:
        for out in ("merged", "exported"):
            shutil.rmtree(run_dir.path.parent / out, ignore_errors=True)
        done = run_command(capfd, *READERS[verb])
        assert done.code in (0, 2, 4), (verb, name, done.err)
        is_sealed = name.startswith("adapter/") and not name.endswith(("README.md", "base.json"))
        if is_sealed and verb in WEIGHTS:
            assert done.code == 4, (verb, name, done.out, done.err)
        if name in ("metrics.jsonl", "samples.jsonl"):
            assert verb != "report" or (done.code == 4 and name in done.err), (name, done.err)
            assert verb != "runs" or "damaged" in done.out, (name, done.out)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("status.json", "cut"),
        ("data.json", "wrong types"),
        ("adapter/adapter_config.json", "flipped"),
        ("metrics.jsonl", "flipped"),
        ("samples.jsonl", "flipped"),
    ],
)
@pytest.mark.usefixtures("beside")
def test_a_damaged_file_is_no_bug_of_any_reader(
    whole: RunDir, copied: RunDir, name: str, damage: str, capfd
) -> None:
    shutil.copytree(whole.path, "other")
    DAMAGE[damage](copied.path / name)
    check_readers(capfd, copied, name, ("generate", "report", "runs", "compare"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_matrix_of_readers(
    whole: RunDir, tmp_path: Path, damage: str, monkeypatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole.path, "other")
    for name in _files(whole):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole.path, "run")
        DAMAGE[damage](Path("run", name))
        is_checkpoint = name.startswith("checkpoints/")
        verbs = ("evaluate", "runs") if is_checkpoint else tuple(READERS)
        check_readers(capfd, RunDir(Path("run")), name, verbs)


@pytest.mark.slow
@pytest.mark.parametrize("is_finished", [True, False], ids=["finished", "stopped"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_matrix_of_run(
    whole: RunDir, tmp_path: Path, damage: str, is_finished: bool, capfd
) -> None:
    """The same command ends with the same weights and everything whole, or names what is broken."""
    for name in _files(whole):
        run_dir = RunDir(tmp_path / "run")
        shutil.rmtree(run_dir.path, ignore_errors=True)
        shutil.copytree(whole.path, run_dir.path)
        if not is_finished:
            if name.startswith("adapter/") or name in ("report.html", "scores.json"):
                continue
            shutil.rmtree(run_dir.adapter)
            for file in (run_dir.measured, run_dir.report, run_dir.scores, run_dir.samples):
                file.unlink()
            if not (run_dir.path / name).exists():
                continue
        DAMAGE[damage](run_dir.path / name)
        recipe = whole.path.parent / "r.json"
        done = run_command(capfd, "run", recipe, "--out", run_dir.path)
        assert done.code in (0, 2, 4), (name, done.err)
        if done.code == 0:
            assert sha256(run_dir) == sha256(whole), name
            assert list(find_lost(run_dir, is_scored=True)) == [], name
            assert read_status(run_dir)["state"] == "finished", name
        else:
            assert Path(name).name in done.err, (name, done.err)
