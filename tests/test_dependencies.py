"""What the package imports is declared, and what is declared is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DECLARED = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def _complaints(folder: Path, pyproject: str) -> list[str]:
    """Return what deptry finds, a line each: its rule and the distribution."""
    file = folder / "pyproject.toml"
    file.write_text(pyproject, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "deptry", "--no-ansi", "--config", file, "peftkit"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found = [line.partition(": DEP")[2] for line in done.stderr.splitlines() if ": DEP" in line]
    assert bool(found) == bool(done.returncode), done.stderr
    return sorted({" ".join(line.split()[:2]) for line in found})


def test_what_is_imported_is_declared_and_nothing_else(tmp_path: Path) -> None:
    assert _complaints(tmp_path, DECLARED) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('    "numpy>=2",\n', "", "003 'numpy'"),
        ('    "numpy>=2",\n', '    "numpy>=2",\n    "pydantic>=2",\n', "002 'pydantic'"),
        ('gguf = ["gguf>=0.17"]', 'gguf = ["nltk"]', "002 'nltk'"),
        ('gguf = ["gguf>=0.17"]', "", "003 'gguf'"),
    ],
)
def test_a_dependency_too_few_or_too_many_is_seen(
    old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    assert DECLARED.count(old) == 1
    assert complaint in _complaints(tmp_path, DECLARED.replace(old, new))
