"""The command line as a person meets it, in this process: what it printed and how it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Outcome:
    """Hold how a command ended."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """Return the error without the program's name; there must be one, and no traceback."""
        assert self.err.startswith("peftkit: "), self.err
        assert "Traceback" not in self.out + self.err
        return self.err.removeprefix("peftkit: ").rstrip("\n")


def run_command(capfd: pytest.CaptureFixture[str], *arguments: Any) -> Outcome:
    """Run `peftkit ARGUMENTS...` and return how it ended."""
    from peftkit.cli import main

    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    printed = capfd.readouterr()
    return Outcome(int(left.value.code or 0), printed.out, printed.err)
