"""`python -m peftkit` is the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEFTKIT = Path(sys.executable).with_name("peftkit")


def test_the_module_is_the_command() -> None:
    found = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "peftkit"], [str(PEFTKIT)])
    ]
    assert "peftkit" in found[0]
    assert found[0].replace("python -m peftkit", "peftkit") == found[1]
