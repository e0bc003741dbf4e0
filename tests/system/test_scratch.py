"""What is half written goes: at the end, at an error, and after a kill at the next beginning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from peftkit.system.scratch import scratch_beside

KILLED = """
import os, signal, sys
from pathlib import Path
from peftkit.system.scratch import scratch_beside
with scratch_beside(Path(sys.argv[1])) as folder:
    (folder / "model").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_beside_the_output_goes_also_at_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch_beside(tmp_path / "out") as folder:
        assert folder.parent == tmp_path
        (folder / "model").mkdir()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_that_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    out = tmp_path / "out[1]"
    subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    (tmp_path / ".out[1].mine").mkdir()  # nobody locked anything in it
    (dead,) = tmp_path.glob(".out*/model")
    with scratch_beside(out) as first:
        assert not dead.exists()
        with scratch_beside(out) as second:
            assert first.exists()
            assert second != first
    assert [path.name for path in tmp_path.iterdir()] == [".out[1].mine"]
