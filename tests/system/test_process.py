"""Two real processes stay one run: the main one writes, and what stops one stops both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import two_processes as two

from peftkit.rundir.checkpoints import find_damage
from peftkit.system.process import ALONE, Process, this_process

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("stated", "process"),
    [
        ({}, ALONE),
        ({"WORLD_SIZE": "1", "RANK": "0"}, ALONE),
        ({"WORLD_SIZE": "", "RANK": "x"}, ALONE),
        (TORCHRUN, Process(rank=3, world_size=4, local_rank=1)),
    ],
)
def test_a_process_knows_which_it_is(
    monkeypatch: pytest.MonkeyPatch, stated: dict[str, str], process: Process
) -> None:
    for variable in TORCHRUN:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in stated.items():
        monkeypatch.setenv(variable, value)
    assert this_process() == process


def test_alone_there_is_nothing_to_wait_for_and_torch_is_not_imported() -> None:
    script = (
        "import sys\n"
        "from peftkit.system.process import this_process\n"
        "one = this_process()\n"
        "one.wait()\n"
        "with one.together(): pass\n"
        "found = one.gather(5), one.agree('x'), one.any_of(True), one.by_main(max, 1, 2)\n"
        "print(found, one.is_main, one.is_alone, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "([5], 'x', True, 2) True True False\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("two")
    (made / "thesis").mkdir()
    (made / "thesis" / "chapter.tex").touch()
    return made


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    return two.in_two_processes(folder, two.meetings, two.errors, two.writers, two.stops)


def both(seen: list[dict[str, Any]], part: str, key: str) -> Any:
    """Return what both saw; fail where they differ."""
    first, second = (one[part][key] for one in seen)
    assert first == second, f"{part}, {key}"
    return first


@pytest.mark.slow
def test_all_get_the_value_of_the_main_one(seen: list[dict[str, Any]]) -> None:
    assert both(seen, "meetings", "agree") == "of 0"
    assert both(seen, "meetings", "by_main") == seen[0]["meetings"]["pid"]
    assert both(seen, "meetings", "gather") == [0, 1]
    assert both(seen, "meetings", "is_same")


@pytest.mark.slow
def test_a_flag_of_one_is_seen_by_all(seen: list[dict[str, Any]]) -> None:
    assert both(seen, "meetings", "one") is True
    assert both(seen, "meetings", "none") is False


@pytest.mark.slow
def test_an_error_of_one_is_raised_in_all(seen: list[dict[str, Any]]) -> None:
    assert both(seen, "errors", "by_main") == "ResourceError: no room\n  try: make some"
    assert both(seen, "errors", "together") == "ResourceError: out of memory\n  try: fewer rows"
    assert [one["errors"]["unsent"] for one in seen] == [
        "LocalError: odd",
        "RuntimeError: LocalError: odd",
    ]


@pytest.mark.slow
def test_only_the_main_one_claims_writes_and_prints(
    seen: list[dict[str, Any]], folder: Path
) -> None:
    written = folder / "written"
    assert (written / ".lock").read_text() == str(seen[0]["meetings"]["pid"])
    assert both(seen, "writers", "is_held") == "True"
    assert (written / "metrics.jsonl").read_text() == '{"step": 1, "rank": 0}\n'
    assert json.loads((written / "status.json").read_text())["identity"] == "of 0"
    assert "hello" in seen[0]["writers"]["shown"]
    assert "loss 1.0" in seen[0]["writers"]["shown"]
    assert seen[1]["writers"]["shown"] == ""
    assert "it holds chapter.tex" in both(seen, "writers", "refused")


@pytest.mark.slow
def test_what_stops_one_stops_both(seen: list[dict[str, Any]]) -> None:
    assert "step 0: the loss is nan" in both(seen, "stops", "loss")
    assert "step 0 took 7.0 MiB" in both(seen, "stops", "budget")


@pytest.mark.slow
def test_a_signal_to_one_stops_both_at_one_step_with_one_checkpoint(folder: Path) -> None:
    seen = two.in_two_processes(folder, two.stopped_training)
    stopped = "StoppedError: stopped by SIGTERM: the same command resumes at step 3"
    assert both(seen, "stopped_training", "said") == stopped
    assert both(seen, "stopped_training", "steps") == 3
    checkpoints = folder / "trained" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-3"]
    assert find_damage(checkpoints / "step-3", identity="0f") is None
    # Each process resumes its own random state, so that each has written one before the seal.
    states = [path.name for path in sorted(checkpoints.rglob("rng_state*"))]
    assert states == ["rng_state_0.pth", "rng_state_1.pth"]
    status = json.loads((folder / "trained" / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("stopped", 75, 3)
