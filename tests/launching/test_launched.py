"""A launched run answers with the run's code, and says only what its main process could not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import run_command

from peftkit.errors import PeftkitError, ResourceError, UsageError
from peftkit.launching import launched
from peftkit.launching.launched import LaunchedRun, check_launch, launch
from peftkit.launching.processes import Ending, Failure
from peftkit.recipe.load import load_recipe
from peftkit.rundir.paths import RunDir
from peftkit.rundir.status import RunStatus, read_status

RECIPE = Path("recipes/summarize-lora.yaml")
TWO = ("--num_processes", "2")


def asked(*arguments: str, engine: str | None = None) -> LaunchedRun:
    return LaunchedRun(RECIPE, ("seed=3",), engine, arguments or TWO, ("--dry-run",), ("--no-x",))


def ended(monkeypatch: pytest.MonkeyPatch, folder: Path, *failures: Failure, **more: Any) -> int:
    """Launch a run whose processes ended like this."""
    monkeypatch.setattr(launched, "run_processes", lambda _: Ending(failures, **more))
    return launch(asked(), load_recipe(RECIPE), RunDir(folder))


def test_the_command_is_accelerate_s_with_the_same_run_in_it() -> None:
    recipe = load_recipe(RECIPE)
    checked = check_launch(asked(engine="fsdp2"), recipe)
    words = checked.command(asked(engine="fsdp2"))
    assert words[0] == "--config_file"
    assert words[1].endswith("engine_files/fsdp2.yaml")
    assert words[2:6] == [*TWO, "--main_process_port", "0"]
    assert words[words.index("--module") :] == [
        "--module", "peftkit", "--no-x", "run", str(RECIPE), "seed=3", "method.sft.fsdp=true",
        "--dry-run",
    ]  # fmt: skip


def test_a_config_file_takes_the_engine_s_place(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    given = ("--config_file", str(own))
    assert check_launch(asked(*given), load_recipe(RECIPE)).engine is None
    with pytest.raises(UsageError, match="exclude each other"):
        check_launch(asked(*given, engine="ddp"), load_recipe(RECIPE))


def test_all_that_speaks_against_it_is_said_at_once() -> None:
    quantized = load_recipe(
        RECIPE, ("model.quantize={bitsandbytes: {load_in_8bit: true}}", "method.sft.fsdp=false")
    )
    with pytest.raises(UsageError) as refused:
        check_launch(asked("--max_restarts", "1", engine="fsdp2"), quantized)
    lines = str(refused.value).splitlines()
    assert lines[0] == "this launch has 3 problems"
    assert "how many" in lines[1]
    assert "--max_restarts" in lines[2]
    assert "4 bits only" in lines[3]


def test_the_main_process_has_said_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ended(monkeypatch, tmp_path) == 0
    stopped = [Failure(rank, 1, 75, "stopped", 10) for rank in range(2)]
    assert ended(monkeypatch, tmp_path, *stopped, forwarded=(15,)) == 75
    early = [Failure(rank, 1, -15, "", 10) for rank in range(2)]
    assert ended(monkeypatch, tmp_path, *early, forwarded=(15,)) == 143
    interrupted = [Failure(rank, 1, 130, "", 10) for rank in range(2)]
    assert ended(monkeypatch, tmp_path, *interrupted, forwarded=(2, 2)) == 130


def test_what_another_process_left_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failures = (Failure(0, 1, 1, "peer", 10), Failure(1, 1, 5, "full\n  try: less", 10))
    with pytest.raises(ResourceError, match=r"rank 1: full\n  try: less") as error:
        ended(monkeypatch, tmp_path, *failures)
    assert error.value.exit_code == 5


def test_a_killed_process_is_named_and_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    RunStatus(RunDir(tmp_path), "0f", step=2, total_steps=8).write("running")
    with pytest.raises(ResourceError, match=r"rank 1 \(process 7\) was killed by SIGKILL") as error:
        ended(monkeypatch, tmp_path, Failure(1, 7, -9, "", 10), Failure(0, 6, 1, "peer", 10))
    assert error.value.hint == "the same command starts over"
    status = read_status(RunDir(tmp_path))
    assert (status["state"], status["exit_code"], status["step"]) == ("failed", 5, 2)
    with pytest.raises(PeftkitError, match="SIGSEGV") as crashed:
        ended(monkeypatch, tmp_path, Failure(1, 7, -11, "", 10))
    assert crashed.value.exit_code == 1


def test_what_accelerate_refuses_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="accelerate launch: no such backend"):
        ended(monkeypatch, tmp_path, error=ValueError("no such backend\nat all"))


def test_the_command_line_refuses_before_anything_starts(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launched, "run_processes", lambda _: pytest.fail("started"))
    alone = run_command(capfd, "run", RECIPE, "--", *TWO)
    assert (alone.code, "--launch accelerate -- --num_processes 2" in alone.refusal) == (2, True)
    assert run_command(capfd, "run", RECIPE, "--engine", "ddp").code == 2
    none = run_command(capfd, "run", RECIPE, "--launch", "accelerate", "--", "--debug")
    assert none.refusal.startswith("how many processes? -- --num_processes 2")
    missing = run_command(capfd, "run", "no.yaml", "--launch", "accelerate", "--", *TWO)
    assert (missing.code, "there is no such file" in missing.refusal) == (2, True)
