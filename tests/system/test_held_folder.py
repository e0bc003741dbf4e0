"""A folder is one process's, whatever is deleted in it, and is known again when its path moves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftkit.system.held_folder import held_folder, is_held


def test_a_folder_is_held_by_one_process_as_long_as_it_lives(tmp_path: Path) -> None:
    script = (
        "import time\nfrom pathlib import Path\n"
        "from peftkit.system.held_folder import held_folder\n"
        f"with held_folder(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n"
        "    time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        with pytest.raises(BlockingIOError), held_folder(tmp_path):
            pass
        owner.kill()
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "none")


def test_a_folder_that_was_replaced_is_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with held_folder(folder) as held:
        assert held.is_there
        folder.rename(tmp_path / "moved")
        assert not held.is_there
        folder.mkdir()
        assert not held.is_there
        folder.rmdir()
        (tmp_path / "moved").rename(folder)
        assert held.is_there
