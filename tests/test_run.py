"""A run from end to end: what it writes, what it refuses, and how each ending is told."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from plan_fixture import each_plan_made_once
from rich.console import Console
from training_fixture import (
    LORA,
    SignalAt,
    files_of_at_most,
    losses,
    planned_only_within_a_budget,
    sha256,
    train,
    train_until,
    write_recipe,
)
from two_processes import in_two_processes, whole_run

from peftkit.errors import ArtefactError, DivergedError, ResourceError, UsageError
from peftkit.recipe.load import load_recipe
from peftkit.run import run
from peftkit.rundir import checkpoints as resume
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import read_status

SFT = {
    "learning_rate": 1e-3,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "max_length": 128,
    "save_strategy": "no",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(12))


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, rows: Path) -> Path:
    return write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDir:
    """Return a finished run of this module's recipe, `r.json` beside it; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished")
    rows = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(12))
    return train(write_recipe(folder / "r.json", tiny_model, rows, sft=SFT), folder / "run")


def recipe_of(finished: RunDir) -> Path:
    return finished.path.parent / "r.json"


@pytest.mark.slow
def test_the_line_is_the_same_for_two_processes_as_for_one(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(48))
    sft = {**SFT, "max_steps": 12, "save_strategy": "steps", "save_steps": 1, "use_cpu": True}
    recipe = write_recipe(tmp_path / "recipe.json", tiny_model, rows, sft=sft, evaluate=True)
    seen = [one["whole_run"] for one in in_two_processes(tmp_path, whole_run)]
    for one in seen:
        assert one["stopped"] == seen[0]["stopped"]
        assert one["stopped"].startswith("StoppedError: stopped by SIGTERM: the same command")
        assert one["resumed"] == "nothing"
    assert "  resuming at step " in seen[0]["shown"]
    assert seen[1]["shown"] == ""

    run_dir = RunDir(tmp_path / "run")
    assert read_status(run_dir)["state"] == "finished"
    alone = train(recipe, tmp_path / "alone", "method.sft.gradient_accumulation_steps=2")
    assert losses(run_dir) == pytest.approx(losses(alone), abs=1e-4)


def test_a_run_writes_everything_and_says_what_it_does(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT, evaluate=True)
    console = Console(record=True, width=200, file=io.StringIO())
    run_dir = run(load_recipe(recipe), out=tmp_path / "run", console=console)
    text = console.export_text()

    assert {path.name for path in run_dir.path.iterdir() if not path.name.startswith(".")} == {
        "recipe.yaml", "resolved.yaml", "versions.json", "data.json", "measured.json",
        "metrics.jsonl", "scores.json", "samples.jsonl", "report.html", "status.json", "adapter",
        "checkpoints", "plan.json", "base.json",
    }  # fmt: skip
    assert run_dir.recipe.read_text() == recipe.read_text()
    assert "decided  method.sft.bf16: false (model.dtype is float32" in text
    assert "data     train: 12 of 12 rows" in text
    assert "of 115,008 parameters trained (7.12%)" in text
    assert "step 3/3  loss " in text
    assert "\x1b" not in text
    status = read_status(run_dir)
    assert (status["state"], status["exit_code"], status["step"]) == ("finished", 0, 3)
    measured = json.loads(run_dir.measured.read_text())
    assert measured["num_steps"] == 3
    assert measured["peak_kind"] == "resident"
    assert measured["peak_bytes"] > 50 << 20
    assert measured["num_trainable"] == 8192
    assert "rougeL" in (run_dir.adapter / "README.md").read_text()


@pytest.mark.parametrize("recipe", ["as written", "as resolved"])
def test_the_same_command_after_the_end_says_so_and_changes_nothing(
    recipe: str, finished: RunDir
) -> None:
    files = [path for path in finished.path.rglob("*") if path.is_file() and path.name != ".lock"]
    before = [path.stat().st_mtime_ns for path in files]
    file = finished.resolved if recipe == "as resolved" else recipe_of(finished)
    console = Console(record=True, width=200, file=io.StringIO())
    run(load_recipe(file), out=finished.path, console=console)

    assert f"already finished: {finished.adapter}" in console.export_text()
    assert [path.stat().st_mtime_ns for path in files] == before


def test_the_resolved_recipe_trains_to_the_same_bits(finished: RunDir, tmp_path: Path) -> None:
    assert sha256(train(finished.resolved, tmp_path / "again")) == sha256(finished)


def test_a_dry_run_loads_and_attaches_but_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=200, file=io.StringIO())
    run_dir = run(load_recipe(recipe), out=tmp_path / "run", dry_run=True, console=console)
    assert "8,192 of 115,008 parameters trained" in console.export_text()
    assert not run_dir.path.exists()


def test_another_recipe_in_the_directory_is_refused_with_the_difference(finished: RunDir) -> None:
    before = finished.status.read_bytes()
    overrides = ("method.sft.learning_rate=5e-4", "adapter.lora.r=8")
    with pytest.raises(UsageError) as caught:
        train(recipe_of(finished), finished.path, *overrides)
    assert caught.value.exit_code == 2
    assert caught.value.message == (
        f"{finished.path} is another run:\n"
        "  adapter.lora.r: 4 -> 8\n"
        "  method.sft.learning_rate: 0.001 -> 0.0005"
    )
    assert finished.status.read_bytes() == before


def test_other_rows_in_the_directory_are_refused(finished: RunDir, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.path, tmp_path / "run"))
    rows = recipe_of(finished).with_name("rows.jsonl")
    before = rows.read_text()
    tiny.write_jsonl(rows, tiny.rows(12, seed=1))
    try:
        with pytest.raises(UsageError, match="trained on other rows: data fingerprint "):
            train(recipe_of(finished), folder)
    finally:
        rows.write_text(before)


def test_a_directory_that_is_no_run_is_refused_untouched(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(UsageError, match=r"is not empty and no run: it holds chapter\.tex"):
        train(recipe, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    with pytest.raises(UsageError, match=r"chapter\.tex is a file"):
        train(recipe, tmp_path / "thesis" / "chapter.tex")


def test_a_directory_in_use_is_refused(recipe: Path, tmp_path: Path) -> None:
    from peftkit.rundir.paths import locked

    (tmp_path / "run").mkdir()
    with locked(RunDir(tmp_path / "run")), pytest.raises(ResourceError) as caught:
        train(recipe, tmp_path / "run")
    assert caught.value.exit_code == 5
    assert f"is in use by process {os.getpid()}" in caught.value.message


def test_a_failed_beginning_does_not_block_the_mended_recipe(
    recipe: Path, rows: Path, tmp_path: Path
) -> None:
    from peftkit.errors import DataError

    good = rows.read_text()
    rows.write_text("{}\n")
    with pytest.raises(DataError):
        train(recipe, tmp_path / "run")
    assert read_status(RunDir(tmp_path / "run"))["exit_code"] == 3
    rows.write_text(good)
    train(recipe, tmp_path / "run", "method.sft.max_steps=1")


@pytest.mark.parametrize("save_steps", [1, 500])
def test_a_loss_that_is_no_number_stops_before_the_weights_are_damaged(
    recipe: Path, tmp_path: Path, save_steps: int
) -> None:
    overrides = ("method.sft.learning_rate=1e30", "method.sft.save_strategy=steps")
    with pytest.raises(DivergedError) as caught:
        train(recipe, tmp_path / "run", *overrides, f"method.sft.save_steps={save_steps}")
    run_dir = RunDir(tmp_path / "run")

    assert caught.value.exit_code == 6
    found = {
        1: "step 1: what the model computes with the weights after it is no number",
        500: "step 2: the gradient is not a finite number, so the step was not taken",
    }
    assert caught.value.message == (
        f"{recipe} method.sft.learning_rate (override): {found[save_steps]} (learning_rate 1e+30,"
        " max_grad_norm 1); no checkpoint was due before it"
    )
    assert caught.value.hint.startswith("method.sft.learning_rate=0.0002 and another --out")
    assert read_status(run_dir)["exit_code"] == 6
    assert not run_dir.adapter.exists()
    assert all(math.isfinite(loss) for loss in losses(run_dir))
    assert resume.list_checkpoints(run_dir.checkpoints) == []


@pytest.mark.parametrize("rate", ["1e30", "1e38"])
def test_a_last_step_that_leaves_no_numbers_is_no_result(
    recipe: Path, tmp_path: Path, rate: str
) -> None:
    with pytest.raises(DivergedError, match=r"learning_rate .*step 1: ") as caught:
        train(
            recipe, tmp_path / "run", f"method.sft.learning_rate={rate}", "method.sft.max_steps=1"
        )
    assert caught.value.exit_code == 6
    run_dir = RunDir(tmp_path / "run")
    assert read_status(run_dir)["state"] == "failed"
    assert not run_dir.adapter.exists()


def test_a_base_that_is_broken_is_named_before_the_first_step(
    recipe: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][500, 3] = math.nan
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtefactError, match=r"1 of \d+ tensors \(model.embed_tokens.weight\)"):
        train(recipe, tmp_path / "run", f"model.path={base}")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_weights_above_the_budget_are_refused_unread(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft=SFT, memory={"budget": "100 KiB"}
    )
    with pytest.raises(ResourceError, match=r"alone take .* KiB, .* KiB more than memory\.budget"):
        train(recipe, tmp_path / "run")


def test_a_planned_peak_above_the_budget_is_refused_until_it_fits(
    rows: Path, tmp_path: Path
) -> None:
    base = tiny.tiny_llama(tmp_path / "base", num_hidden_layers=1)
    recipe = write_recipe(tmp_path / "r.json", base, rows, sft=SFT)
    run_dir, plans = RunDir(tmp_path / "run"), {}
    said = r"planned to take .* more than memory\.budget: 20 MiB; before any row it takes"
    for _ in range(2):
        with each_plan_made_once(plans), pytest.raises(ResourceError, match=said) as caught:
            train(recipe, run_dir.path, "memory.budget=20 MiB")
        status = read_status(run_dir)
        assert (status["state"], status["exit_code"]) == ("failed", 5)
        assert status["message"] == caught.value.message
        plan = json.loads(run_dir.plan.read_text())
        assert plan["peak_bytes"] > 20 << 20
        assert {"name": "memory.budget", "num_bytes": 20 << 20} in plan["limits"]
        assert not run_dir.metrics.exists() and not run_dir.checkpoints.exists()

    unplanned = RunDir(Path(shutil.copytree(run_dir.path, tmp_path / "unplanned")))
    train(recipe, unplanned.path)
    assert not unplanned.plan.exists(), "none of an earlier call is left"

    train(recipe, run_dir.path, "memory.budget=8 GiB", "method.sft.max_steps=1")
    assert read_status(run_dir)["state"] == "finished"
    plan = json.loads(run_dir.plan.read_text())
    assert {"name": "memory.budget", "num_bytes": 8 << 30} in plan["limits"]


# Above the JSON files; below the adapter's weights (33 kB), then below its optimizer's state.
@pytest.mark.parametrize("num_bytes", [26_000, 45_000])
def test_a_full_disk_is_told_and_loses_nothing(
    recipe: Path, finished: RunDir, tmp_path: Path, num_bytes: int
) -> None:
    overrides = ("method.sft.save_strategy=steps", "method.sft.save_steps=1")
    with files_of_at_most(num_bytes), pytest.raises(ResourceError) as caught:
        train(recipe, tmp_path / "run", *overrides)
    assert caught.value.exit_code == 5
    assert "the disk is full while training" in caught.value.message
    assert read_status(RunDir(tmp_path / "run"))["exit_code"] == 5

    assert sha256(train(recipe, tmp_path / "run", *overrides)) == sha256(finished)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_step_loses_nothing_and_says_so(
    recipe: Path, tmp_path: Path, number: int
) -> None:
    error, _ = train_until(recipe, tmp_path / "run", "  data ", number)
    name = signal.Signals(number).name
    assert str(error) == f"stopped by {name}: no step was trained; the same command starts over"
    assert error.exit_code == 75


def test_a_directory_that_goes_while_it_trains_is_missed_at_once(
    recipe: Path, tmp_path: Path
) -> None:
    class Deleting(SignalAt):
        def act(self) -> None:
            shutil.rmtree(tmp_path / "run")

    loaded = load_recipe(recipe)
    console = Console(file=Deleting("  probed ", 0), width=200)
    with pytest.raises(ResourceError) as caught, planned_only_within_a_budget(loaded):
        run(loaded, out=tmp_path / "run", console=console)
    assert caught.value.message == (
        f"{tmp_path / 'run'} was deleted, moved or replaced while this run went on in it"
    )
    assert not (tmp_path / "run" / "status.json").exists()
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_a_signal_during_the_evaluation_keeps_the_training(
    tmp_path: Path, tiny_model: Path, rows: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=SFT, evaluate=True)
    error, _ = train_until(recipe, tmp_path / "run", "  trained ", signal.SIGTERM)
    assert "the trained weights are saved; the same command evaluates them" in str(error)
    run_dir = RunDir(tmp_path / "run")
    before = sha256(run_dir)

    train(recipe, tmp_path / "run")
    assert sha256(run_dir) == before
    assert run_dir.scores.exists()
    assert len(losses(run_dir)) == 3


def _start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    script = "from peftkit.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, "run", str(recipe), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for_steps(process: subprocess.Popen[str], run_dir: RunDir, num_steps: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if run_dir.metrics.exists() and len(run_dir.metrics.read_text().splitlines()) >= num_steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {num_steps}: {process.communicate()[0]}")


@pytest.fixture
def long_recipe(tmp_path: Path, tiny_model: Path, rows: Path) -> Path:
    sft = {**SFT, "max_steps": 60, "logging_steps": 1, "save_steps": 10, "save_strategy": "steps"}
    return write_recipe(
        tmp_path / "long.json", tiny_model, rows, sft=sft, lora={**LORA, "lora_dropout": 0.1}
    )


@pytest.mark.slow
def test_a_process_stopped_by_sigterm_leaves_with_75_and_goes_on_to_the_same_bits(
    long_recipe: Path, tmp_path: Path
) -> None:
    run_dir = RunDir(tmp_path / "run")
    process = _start(long_recipe, run_dir.path)
    _wait_for_steps(process, run_dir, 5)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert "stopped by SIGTERM: the same command resumes at step " in out
    assert "Traceback" not in out

    train(long_recipe, run_dir.path)
    assert sha256(run_dir) == sha256(train(long_recipe, tmp_path / "whole"))


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once_and_kills_leave_a_resumable_run(
    long_recipe: Path, tmp_path: Path
) -> None:
    run_dir = RunDir(tmp_path / "run")
    process = _start(long_recipe, run_dir.path)
    _wait_for_steps(process, run_dir, 3)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    # The first may have been served before the second came.
    assert process.returncode in (130, 75)
    for num_steps in (11, 22, 35, 48):
        process = _start(long_recipe, run_dir.path)
        _wait_for_steps(process, run_dir, num_steps)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    train(long_recipe, run_dir.path)
    assert sha256(run_dir) == sha256(train(long_recipe, tmp_path / "whole"))
