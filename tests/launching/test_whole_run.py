"""A whole run under `--launch accelerate`: stopped, killed and finished by the same command."""

from __future__ import annotations

import json
import signal
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


def start(recipe: Path, out: Path, *overrides: str) -> subprocess.Popen[str]:
    words = ["run", str(recipe), *overrides, "--out", str(out), "--launch", "accelerate"]
    return subprocess.Popen(
        [sys.executable, "-m", "peftkit", *words, "--", "--num_processes", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def status(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "status.json").read_text(encoding="utf-8"))
    return found


def test_it_is_stopped_killed_and_finished(tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    texts = [{"document": f"read file {n} " * (1 + n % 5), "summary": f"{n}"} for n in range(64)]
    rows.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
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


def test_what_the_run_itself_refuses_keeps_its_code(tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"document": "", "summary": ""}\n' * 8, encoding="utf-8")
    recipe = write_recipe(tmp_path / "r.json", tiny_model, rows, sft=STEPS)
    process = start(recipe, tmp_path / "run")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert err.count("peftkit: ") == 1
