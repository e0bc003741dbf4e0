"""Real processes under accelerate's launcher: signals come once, and codes are told apart."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peftkit.launching.engines import ENGINES
from peftkit.launching.processes import Ending, Failure, run_processes

STAND_IN = """
import json, os, signal, sys, time
folder, rank, come = sys.argv[1], int(os.environ["RANK"]), []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: come.append(number))
def wait_until(is_so):
    while not is_so(): time.sleep(0.01)
def left(code, text):
    extra = {"py_callstack": "", "timestamp": str(int(time.time()))}
    content = {"message": {"message": text, "errorCode": code, "extraInfo": extra}}
    json.dump(content, open(os.environ["TORCHELASTIC_ERROR_FILE"], "w"))
    sys.exit(code)
def note(**content):
    json.dump(content, open(f"{folder}/{rank}.json", "w"))
"""


def run(folder: Path, body: str, until: Callable[[], None] | None = None) -> Ending:
    """Run a body of Python in two processes; call something in a thread meanwhile."""
    script = folder / "stand_in.py"
    script.write_text(STAND_IN + body, encoding="utf-8")
    if until is not None:
        threading.Thread(target=until, daemon=True).start()
    return run_processes([
        *("--config_file", str(ENGINES["ddp"].file), "--num_processes", "2"),
        *("--main_process_port", "0", str(script), str(folder)),
    ])  # fmt: skip


def test_a_signal_comes_once_to_each_and_nobody_is_hurried(tmp_path: Path) -> None:
    def signal_us() -> None:
        while len([*tmp_path.glob("*.ready")]) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGHUP)

    ending = run(
        tmp_path,
        """
open(f"{folder}/{rank}.ready", "w")
wait_until(lambda: len(come) == 2)
time.sleep(0.5)
note(come=come)
if rank: time.sleep(0.2)
sys.exit(75)
""",
        signal_us,
    )
    come = [json.loads((tmp_path / f"{rank}.json").read_text())["come"] for rank in range(2)]
    assert come == [[signal.SIGINT, signal.SIGHUP]] * 2
    assert ending.forwarded == (signal.SIGINT, signal.SIGHUP)
    assert ending.cause is not None
    assert ending.cause.exit_code == 75
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_killed_process_is_the_cause_and_what_is_left_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ending = run(
        tmp_path,
        """
if rank == 1:
    wait_until(lambda: os.path.exists(f"{folder}/0.json"))
    os.kill(os.getpid(), signal.SIGKILL)
note()
wait_until(lambda: come)
left(1, "connection closed by peer")
""",
    )
    cause = ending.cause
    assert cause is not None
    assert (cause.rank, cause.exit_code, cause.signal_name) == (1, -9, "SIGKILL")
    [other] = [one for one in ending.failures if one.rank == 0]
    assert (other.exit_code, other.message) == (1, "connection closed by peer")
    assert "Traceback" not in capfd.readouterr().err


def test_success_has_no_cause_and_what_cannot_start_an_error(tmp_path: Path) -> None:
    ending = run(tmp_path, "note(threads=os.environ['OMP_NUM_THREADS'])")
    assert ending == Ending()
    assert json.loads((tmp_path / "1.json").read_text())["threads"] == os.environ["OMP_NUM_THREADS"]
    missing = run_processes(["--config_file", str(tmp_path / "none.yaml"), "script.py"])
    assert isinstance(missing.error, FileNotFoundError)


@pytest.mark.parametrize(
    ("endings", "cause"),
    [
        ([(0, 1, 10), (1, -9, 10)], 1),
        ([(0, 1, 9), (1, -9, 10)], 1),
        ([(0, 3, 10), (1, 3, 10)], 0),
        ([(0, 1, 10), (1, 5, 10)], 1),
        ([(0, 143, 9), (1, 3, 10)], 1),
        ([(0, -15, 10), (1, 1, 10)], 1),
        ([(0, 5, 10), (1, -9, 41)], 0),
        ([(0, -15, 10), (1, 75, 10)], 1),
    ],
)
def test_the_cause_is_what_says_most_of_what_failed_first(
    endings: list[tuple[int, int, int]], cause: int
) -> None:
    failures = tuple(Failure(rank, 0, code, "", at) for rank, code, at in endings)
    found = Ending(failures).cause
    assert found is not None
    assert found.rank == cause
