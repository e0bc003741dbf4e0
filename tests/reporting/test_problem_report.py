"""A report about a problem holds what mends it, and neither secrets nor data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import run_command

from peftkit.doctor import Examination, Finding
from peftkit.reporting.problem_report import problem_report, without_secrets
from peftkit.rundir.paths import RunDir, write_json

SECRETS = (
    "hf_abcdefghijklmnopqrstuvwx", "sk-proj-0123456789abcdef", "ghp_0123456789abcdefgh",
    "AKIAIOSFODNN7EXAMPLE", "correct-horse-battery", "s3cr3t/value+of==something",
)  # fmt: skip
FINDINGS = [{"group": "stack", "name": "torch", "state": "ok", "detail": "2.13"}]


def test_no_secret_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRETS[4])
    text = (
        f"token: {SECRETS[0]}\nx {SECRETS[1]} y\n{SECRETS[2]}\n{SECRETS[3]}\n{SECRETS[4]}\n"
        f'hub_token: "{SECRETS[5]}"\nmax_new_tokens: 128\npad_token: null\nadd_tokens: [<a>]\n'
    )
    shown = without_secrets(text)
    assert not [one for one in SECRETS if one in shown]
    assert "max_new_tokens: 128\npad_token: null\nadd_tokens: [<a>]" in shown


def test_a_run_is_told_without_its_rows(tiny_run: Path, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run")
    shutil.copytree(tiny_run, run_dir.path)
    rows = [json.loads(line) for line in (tiny_run.parent / "rows.jsonl").read_text().splitlines()]
    status = run_dir.read_json(run_dir.status)
    said = f"row 3 holds {rows[0]['document']!r}"
    write_json(run_dir.status, {**status, "message": said})
    failure = {
        "arguments": ["generate", "run", rows[1]["document"], "--option", "max_new_tokens=3"],
        "error": f"KeyError: {rows[2]['document']!r}",
        "frames": ["peftkit/run.py:3 in run"],
    }
    text = problem_report(FINDINGS, run_dir, failure)
    for row in rows:
        for value in row.values():
            assert value not in text
            assert value[:20] not in text
    for wanted in ("ok    stack: torch: 2.13", '"peft": "', "learning_rate", '"num_rows": ',
                   "peftkit/run.py:3 in run", "generate --option max_new_tokens=3",
                   "KeyError: '...'", "row 3 holds '...'"):  # fmt: skip
        assert wanted in text, wanted


def test_a_run_of_which_little_is_left_is_told_too(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.status.write_text("{")
    run_dir.metrics.write_text("x\ny\n")
    text = problem_report(FINDINGS, run_dir, {})
    assert "status.json cannot be read as JSON" in text
    assert "metrics.jsonl:1 is not JSON" in text


def test_the_command_writes_one_file_and_never_over_another(
    tmp_path: Path, tiny_run: Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Examination((Finding("stack", "torch", "ok", "2.13"),))
    monkeypatch.setattr("peftkit.doctor.doctor", lambda **_: found)
    done = run_command(capfd, "doctor", "--report", "--run", tiny_run)
    assert done.code == 0
    assert "wrote peftkit-report.txt: read it before you send it" in done.out
    assert f"run {tiny_run.name}" in Path("peftkit-report.txt").read_text()
    assert run_command(capfd, "doctor", "--report").code == 0
    assert len(list(tmp_path.glob("peftkit-report*.txt"))) == 2
    assert run_command(capfd, "doctor", "--run", tiny_run).code == 2
    assert run_command(capfd, "doctor", "--report", "--run", tmp_path / "none").code == 2
