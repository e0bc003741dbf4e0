"""Files are replaced whole, and one process at a time has the directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peftkit.errors import ArtefactError, ResourceError
from peftkit.rundir.paths import RunDir, is_locked, locked, write_atomically, write_json
from peftkit.system.checkpoint_files import read_json


def test_a_json_file_opens_with_its_schema_version(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": "ü"})
    content = json.loads((tmp_path / "x.json").read_text())
    assert list(content) == ["schema_version", "a", "seal"]
    assert read_json(tmp_path / "x.json") == {"schema_version": 1, "a": "ü"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_atomically(file, "old")
    (tmp_path / ".x.json.partial").mkdir()
    with pytest.raises(ResourceError, match=r"cannot write .*x\.json: Is a directory"):
        write_atomically(file, "new")
    assert file.read_text() == "old"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"data\.json"):
        RunDir(tmp_path).read_json(RunDir(tmp_path).data)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as caught:
        RunDir(tmp_path).read_json(RunDir(tmp_path).scores)
    assert caught.value.hint == f"peftkit run {tmp_path}"


def test_the_lock_names_its_owner_and_dies_with_it(tmp_path: Path) -> None:
    script = (
        "import time\nfrom pathlib import Path\nfrom peftkit.rundir.paths import RunDir, locked\n"
        f"with locked(RunDir(Path({str(tmp_path)!r}))):\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    assert not is_locked(RunDir(tmp_path))
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout.readline() == "held\n"
        assert is_locked(RunDir(tmp_path))
        with (
            pytest.raises(ResourceError, match=f"is in use by process {owner.pid}"),
            locked(RunDir(tmp_path)),
        ):
            pass
        (tmp_path / ".lock").unlink()  # as people do who think that it is left over
        with pytest.raises(ResourceError, match="is in use by"), locked(RunDir(tmp_path)):
            pass
        owner.kill()
    with locked(RunDir(tmp_path)):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_the_trained_folder_is_whichever_was_written(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.trained == run_dir.model
    run_dir.adapter.mkdir()
    assert run_dir.trained == run_dir.adapter


def test_what_was_not_written_is_empty_and_what_is_broken_is_named(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.read_resolved() == run_dir.read_if_there(run_dir.data) == {}
    run_dir.resolved.write_text("a: [1")
    run_dir.data.write_text("{")
    with pytest.raises(ArtefactError, match=r"resolved\.yaml is no recipe"):
        run_dir.read_resolved()
    with pytest.raises(ArtefactError, match=r"data\.json cannot be read as JSON"):
        run_dir.read_if_there(run_dir.data)
