"""Say before the first stage what is here and what is wrong with it, each in a line.

Read from `nvidia-smi` and from installed metadata: no process but a stage's own makes a context on
the card, and nothing heavy is imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from peftkit.plugins import Machine
from peftkit.system.units import GIB, gibibytes

NEEDED = (
    "torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes", "tokenizers",
    "safetensors", "huggingface_hub", "numpy", "pyarrow", "psutil", "PyYAML", "rich", "jinja2",
)  # fmt: skip
"""Distributions that every stage imports; `pytest` is asked for by one, which goes on without."""
OLDEST_DRIVER: Mapping[int, tuple[int, ...]] = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
"""CUDA's major version -> the oldest driver that runs all of it on Linux.
Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility"."""
WHOLE_GRID = 79 * GIB
"""From what size on the whole grid is planned to fit."""
_BUSY = 1 * GIB
"""What others may hold before a card is called busy; a display takes less."""
_QUERY = "name,memory.total,memory.free,driver_version,compute_cap"


@dataclass(frozen=True)
class Facts:
    """Hold what was found out about the card and the packages."""

    machine: Machine | None
    """The card; None where there is none."""
    driver: str | None
    cuda: str | None
    """The CUDA that torch was built for; None for a build without."""
    missing: Sequence[str] = ()
    neighbours: Sequence[str] = field(default_factory=tuple)
    """Other processes on the card, with what each holds."""


def examine(facts: Facts) -> tuple[list[str], bool]:
    """Return a line for everything worth saying, and whether the stages can run at all."""
    lines = [f"{name} is not installed: install it, and run this again" for name in facts.missing]
    machine = facts.machine
    if machine is None:
        return [
            *lines,
            "no NVIDIA GPU answers nvidia-smi; --dry tries every stage on the CPU",
        ], False
    if facts.cuda is None and "torch" not in facts.missing:
        lines.append("this torch is a build without CUDA: install one for the driver's CUDA")
    too_old = _driver_too_old(facts.driver, facts.cuda)
    if too_old:
        lines.append(too_old)
    can_run = not lines
    lines.append(f"{machine.name}, {gibibytes(machine.total_bytes)}, driver {facts.driver}")
    taken = machine.total_bytes - machine.free_bytes
    if taken > _BUSY:
        by = f" by {', '.join(facts.neighbours)}" if facts.neighbours else ""
        lines.append(
            f"busy: {gibibytes(taken)} are taken{by}; plans are held against the"
            f" {gibibytes(machine.free_bytes)} that are free, {taken / machine.total_bytes:.0%}"
            " less than the card, and times may be longer than the card's own"
        )
    if machine.free_bytes < WHOLE_GRID:
        lines.append(
            f"the grid shrinks to what is planned to fit in {gibibytes(machine.free_bytes)}, and"
            " speed is measured on the largest model that does"
        )
    if not machine.supports_bfloat16:
        lines.append("no bfloat16 arithmetic: the stages compute in it, and would tell nothing")
        can_run = False
    return lines, can_run


def gather() -> Facts:
    """Ask the driver and the installed packages."""
    machine, driver = _card()
    missing = [name for name in NEEDED if not _is_installed(name)]
    neighbours = _neighbours() if machine is not None else ()
    return Facts(machine, driver, cuda_of_torch(), missing, neighbours)


def read_card(line: str) -> tuple[Machine, str]:
    """Read a line of nvidia-smi's CSV; return the card and its driver."""
    name, total, free, driver, capability = (part.strip() for part in line.rsplit(",", 4))
    # Ampere, 8.0, is the first with bfloat16 arithmetic.
    has_bfloat16 = int(capability.split(".")[0]) >= 8
    return Machine("cuda", has_bfloat16, int(total) << 20, int(free) << 20, name), driver


def cuda_of_torch() -> str | None:
    """Return the CUDA version that torch was built for, without importing torch."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    cuda: str | None = runpy.run_path(str(Path(found.origin).parent / "version.py")).get("cuda")
    return cuda


def _driver_too_old(driver: str | None, cuda: str | None) -> str | None:
    if driver is None or cuda is None:
        return None
    needed = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if needed is None or _numbers(driver) >= needed:
        return None
    least = ".".join(map(str, needed))
    return (
        f"driver {driver} is too old for torch's CUDA {cuda}, which needs {least}: update the"
        " driver, or install a torch that was built for an older CUDA"
    )


def _card() -> tuple[Machine | None, str | None]:
    lines = _ask("--query-gpu=" + _QUERY)
    try:
        return read_card(lines[0]) if lines else (None, None)
    except ValueError:  # a slice of a card (MIG) has no size of its own there
        return None, None


def _neighbours() -> list[str]:
    found = []
    for line in _ask("--query-compute-apps=pid,process_name,used_memory"):
        pid, name, used = (part.strip() for part in line.split(",", 2))
        size = gibibytes(int(used) << 20) if used.isdigit() else "an unknown size"
        found.append(f"{Path(name).name} ({pid}, {size})")
    return found


def _ask(query: str) -> list[str]:
    """Ask nvidia-smi about the first card; nothing where it is not there or does not answer."""
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", f"--id={card}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.count(",") >= 2]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
