"""`python -m peftkit` is the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

peftkit = Path(sys.executable).with_name("peftkit")


def test_the_module_is_the_command() -> None:
    found = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "peftkit"], [str(peftkit)])
    ]
    assert "peftkit" in found[0]
    assert found[0].replace("python -m peftkit", "peftkit") == found[1]


INTERRUPTED = """
import sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "peftkit.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from peftkit.__main__ import main
main()
"""


def test_ctrl_c_before_the_command_line_is_there_leaves_no_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
