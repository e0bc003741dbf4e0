"""Files as people have them: `init`, then `check`, then `data`, or one message of what lacks."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import run_command
from data_shapes import LACKING, SHAPES, Maker

pytestmark = pytest.mark.slow


def make_ready(capfd: pytest.CaptureFixture[str], made: Path) -> None:
    first = run_command(capfd, "init", made.name)
    assert first.code == 0, first.err
    recipe = re.search(r"\S+\.yaml", first.out.replace("'", ""))
    assert recipe is not None, first.out
    (file,) = Path().glob("*.yaml")
    for verb in ("check", "data"):
        done = run_command(capfd, verb, str(file))
        assert done.code == 0, f"{shlex.join([verb, str(file)])}\n{done.out}{done.err}"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_becomes_a_recipe_whose_audit_passes(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_ready(capfd, SHAPES[shape](tmp_path))


@pytest.mark.parametrize("shape", LACKING)
def test_what_lacks_is_said_in_one_message(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make: Maker
    make, said = LACKING[shape]
    refused = run_command(capfd, "init", make(tmp_path).name)
    assert refused.code in (2, 3), refused.out
    assert re.search(said, refused.refusal), refused.err
    assert list(tmp_path.glob("*.yaml")) == []
    if " > rows.jsonl" in refused.err:  # the command that it names makes a file that works
        command = refused.err.split("try: ")[1].split(" && ")[0]
        done = subprocess.run(["bash", "-c", command], check=False)
        assert done.returncode == 0
        make_ready(capfd, tmp_path / "rows.jsonl")
