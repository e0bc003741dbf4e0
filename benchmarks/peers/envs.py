"""The environments of the peers that cannot share peftkit's: what each needs, pinned."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TORCH = "torch==2.13.0"
"""The same for all, or libraries would be compared instead of tools."""
PACKAGES: dict[str, tuple[str, ...]] = {
    "torchtune": (TORCH, "torchtune==0.6.1", "torchao==0.13.0"),
    "litgpt": (TORCH, "litgpt==0.5.13", "requests"),
    "llamafactory": (TORCH, "llamafactory==0.9.5"),
}
"""Peer -> what pip installs."""

UNWANTED = ("torchvision", "torchaudio")
"""What comes with some of them, built for another torch, and breaks the import of transformers."""


def python_of(folder: Path) -> Path:
    """Return the Python of an environment."""
    return folder / "bin" / "python"


def make(folder: Path, names: Sequence[str]) -> None:
    """Make the environments of some peers; one that is there stays."""
    for name in names:
        if name not in PACKAGES or python_of(folder / name).exists():
            continue
        print(f"making {folder / name}: {' '.join(PACKAGES[name])}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        pip = [str(python_of(folder / name)), "-m", "pip", "install", "--quiet"]
        if subprocess.run([*pip, *PACKAGES[name]], check=False).returncode:
            print(f"{name} could not be installed", flush=True)
            continue
        subprocess.run([*pip[:3], "uninstall", "--quiet", "--yes", *UNWANTED], check=True)
