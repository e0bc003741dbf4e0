"""Write `lock.txt`: every package of `.[test]` with the hash of its file, and no address of one.

    python tools/lock.py        # CPython 3.11 on Linux x86-64, pip 26.3, PyPI as the only index

pip's own lock file names the address of each file, which binds a project to one index.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "lock.txt"
HEAD = "# The tested stack, file by file: pip install --require-hashes -r lock.txt\n"


def main() -> None:
    """Ask pip, and write what it says."""
    command = [sys.executable, "-m", "pip", "lock", "-c", "constraints.txt", "-o", "-", ".[test]"]
    done = subprocess.run(  # noqa: S603 - our own words
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    LOCK.write_text(locked(tomllib.loads(done.stdout)), encoding="utf-8")


def locked(content: Mapping[str, Any]) -> str:
    """Return pip's lock as a list of requirements with hashes; the project itself is left out."""
    lines = []
    for package in content["packages"]:
        if "directory" in package:
            continue
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        hashes = "".join(f" --hash=sha256:{file['hashes']['sha256']}" for file in files)
        lines.append(f"{package['name']}=={package['version']}{hashes}\n")
    return HEAD + "".join(sorted(lines))


if __name__ == "__main__":
    main()
