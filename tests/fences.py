"""The fenced blocks of README and docs: each says by its language what becomes of it.

A block without a language, or of `bash`, holds commands; `console` commands behind `$` and what
they print; `text` what a command of an earlier block prints. `...` stands for lines left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/*/*.md")])
COMMANDS = ("", "bash", "console")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

NOT_RUN = {
    r"^(python3? -m venv|\. \.venv/|(\S+/|\S+ -m )?pip install)": "CI installs as README says",
    r"^(\.venv/bin/)?(pytest|npm|ruff|mypy)\b": "is the suite itself, or its checks",
    r"^peftkit push ": "asks the Hub; tests/test_push.py pushes to a stand-in",
    r"--launch accelerate": "several processes; tests/test_launch.py and others run them",
    r"^peftkit bench ": "36 cells; tests/test_bench.py runs one",
    r"^python benchmarks/(gpu|recorded|quality)\.py": "needs a GPU, or hours",
    r"^python benchmarks/(report|gpu_wheels)\.py": "writes this page, or fetches from the network",
    r"^(python tools/lock\.py|cyclonedx-py |pip-audit )": "asks an index, or tools of a release",
    r"^PYTHONPATH=site": "needs a GPU, and the wheels",
}
"""What no test runs as it stands on a page, and why; its options are parsed all the same."""
NOT_RUN_PAGES = {
    "peftkit-distributions": "tests/test_example_plugin.py installs it and runs these",
    "peftkit-int8": "tests/test_example_int8.py installs it and runs these",
    "peftkit-preferences": "tests/test_example_preferences.py installs it and runs these",
}
"""Folders of pages whose commands need a package of their own."""


@dataclass(frozen=True)
class Fence:
    """Hold one block."""

    page: Path
    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """Return its commands; what goes on in a heredoc or in quotes is one, `&&` makes two."""
        if self.language == "console":
            return re.findall(r"^\$ (.*)$", self.text, re.MULTILINE)
        return [part for line in self._lines for part in line.split(" && ")]

    @property
    def _lines(self) -> list[str]:
        found: list[str] = []
        is_open = False
        for line in self.text.splitlines():
            if is_open:
                found[-1] += f"\n{line}"
            elif line.strip():
                found.append(line)
            is_open = bool(found) and _goes_on(found[-1])
        return found

    @property
    def shown(self) -> list[str]:
        """Return the lines of output that it shows."""
        return [line for line in self.text.splitlines() if line.strip() and line[:2] != "$ "]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _goes_on(command: str) -> bool:
    here = re.search(r"<<'(\w+)'", command)
    if here:
        return not command.rstrip().endswith(f"\n{here[1]}")
    return command.partition(" #")[0].count('"') % 2 == 1


def fences(page: Path, *languages: str) -> Iterator[Fence]:
    """Give a page's blocks, of these languages alone where any is named."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if not languages or block[1] in languages:
            yield Fence(page, block[1], block[2], text.count("\n", 0, block.start()) + 1)


def why_not_run(page: Path, command: str) -> str | None:
    """Say why a command is not run as it stands; None where it is."""
    if page.parent.name in NOT_RUN_PAGES:
        return NOT_RUN_PAGES[page.parent.name]
    return next((why for what, why in NOT_RUN.items() if re.search(what, command)), None)
