"""Example packages, installed into an environment of their own beside this one's packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Outcome

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
_COMMANDS = """
import contextlib, io, json, sys
from peftkit.cli import main

found = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as left:
            found.append([int(left.code or 0), out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Installed:
    """Know where an example and its environment are."""

    python: Path
    package: Path
    """A copy of the example."""
    site: Path
    """The environment's own packages: the example alone."""

    def run(self, *arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python."""
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)

    def peftkit(self, *commands: Sequence[Any], cwd: Path) -> list[Outcome]:
        """Run commands one after the other in one process of the environment."""
        texts = [[str(argument) for argument in arguments] for arguments in commands]
        done = self.run("-c", _COMMANDS, json.dumps(texts), cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return [Outcome(*found) for found in json.loads(done.stdout.splitlines()[-1])]


def install(name: str, folder: Path) -> Installed:
    """Install a copy of an example into a fresh environment that borrows this one's packages."""
    copy = shutil.copytree(
        EXAMPLES / name, folder / "package",
        ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"),
    )  # fmt: skip
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "env" / "lib" / version / "site-packages"
    # Editable installs are borrowed too.
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (site / "borrowed.pth").write_text(line)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", str(copy)]
    done = subprocess.run(
        [*command, *offline], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Installed(python, copy, site)
