"""A whole run under `--launch accelerate`: stopped, killed and finished by the same command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_fixture import write_recipe

pytestmark = pytest.mark.slow
STEPS = {"max_steps": 60, "save_steps": 2, "learning_rate": 1e-3, "max_length": 64,
         "per_device_train_batch_size": 2}  # fmt: skip


def start(recipe: Path, out: Path, *launched: str) -> subprocess.Popen[str]:
    words = ["run", str(recipe), "--out", str(out), "--launch", "accelerate"]
    return subprocess.Popen(
        [sys.executable, "-m", "peftkit", *words, "--", "--num_processes", "2", *launched],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_machines(recipe: Path, out: Path) -> list[subprocess.Popen[str]]:
    """Start the launchers of two machines of one process each, which are one host here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ("--main_process_ip", "127.0.0.1", "--main_process_port")
        port = str(free.getsockname()[1])
    return [
        start(recipe, out, "--num_machines", "2", "--machine_rank", rank, *meeting, port)
        for rank in ("0", "1")
    ]


def write_rows(file: Path) -> Path:
    texts = [{"document": f"read file {n} " * (1 + n % 5), "summary": f"{n}"} for n in range(64)]
    file.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    return file


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def status(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "status.json").read_text(encoding="utf-8"))
    return found


def test_it_is_stopped_killed_and_finished(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    recipe, out = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=STEPS), tmp_path / "run"

    process = start(recipe, out)
    wait_for(out / "checkpoints" / "step-2", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, status(out)["exit_code"]) == (75, 75), err
    assert err.count("peftkit: stopped by SIGTERM") == 1

    process = start(recipe, out)
    wait_for(out / "checkpoints" / f"step-{status(out)['step'] // 2 * 2 + 6}", process)
    worker = psutil.Process(process.pid).children()[-1]
    worker.kill()
    killed = time.monotonic()
    _, err = process.communicate(timeout=90)
    assert time.monotonic() - killed < 60
    assert (process.returncode, status(out)["exit_code"]) == (5, 5), err
    assert f"(process {worker.pid}) was killed by SIGKILL" in err
    assert "the same command resumes at step" in err

    process = start(recipe, out)
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "resuming at step" in said
    assert (status(out)["state"], (out / "adapter").is_dir()) == ("finished", True)


def test_two_machines_stop_lose_one_and_finish_together(tiny_model: Path, tmp_path: Path) -> None:
    rows, out = write_rows(tmp_path / "rows.jsonl"), tmp_path / "run"
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=STEPS)

    machines = start_machines(recipe, out)
    wait_for(out / "checkpoints" / "step-2", machines[0])
    machines[1].send_signal(signal.SIGTERM)
    ended = [machine.communicate(timeout=120) for machine in machines]
    assert [machine.returncode for machine in machines] == [75, 75], ended

    machines = start_machines(recipe, out)
    wait_for(out / "checkpoints" / f"step-{status(out)['step'] // 2 * 2 + 6}", machines[0])
    lost = [psutil.Process(machines[1].pid), *psutil.Process(machines[1].pid).children(True)]
    for process in lost:
        process.kill()
    killed = time.monotonic()
    _, err = machines[0].communicate(timeout=90)
    machines[1].communicate()
    assert time.monotonic() - killed < 60
    assert (machines[0].returncode, status(out)["exit_code"]) == (5, 5), err
    assert "another of the 2 processes ended without a word" in err

    machines = start_machines(recipe, out)
    ended = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], ended
    assert "resuming at step" in ended[0][0]
    assert status(out)["state"] == "finished"


def test_what_the_run_itself_refuses_keeps_its_code(tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"document": "", "summary": ""}\n' * 8, encoding="utf-8")
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=STEPS)
    process = start(recipe, tmp_path / "run")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert err.count("peftkit: ") == 1
