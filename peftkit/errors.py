"""Every way peftkit can refuse or stop, each kind with its exit code.

| code | meaning |
|-----:|---------|
| 0 | done |
| 1 | a bug in peftkit |
| 2 | usage or recipe |
| 3 | data |
| 4 | artefact broken, not trusted or not verified |
| 5 | resources: memory, disk, device |
| 6 | training diverged |
| 7 | network or credentials |
| 75 | stopped by a signal with a checkpoint; the same command resumes |
| 130 | stopped by Ctrl-C; of `run`, at once by a second one |
| 129, 143 | stopped by SIGHUP or SIGTERM, of all verbs but `run`: nothing half written stays |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

_MOST_SHOWN = 200
"""Problems of a file that are laid out; `check --json` has them all."""


@dataclass(frozen=True)
class Problem:
    """Say where one thing in a file is wrong and what to do about it."""

    file: str
    line: int | None
    """1-based; None when the problem has no line of its own (a missing file, an override)."""
    key: str
    """Dotted path, e.g. `adapter.lora.r`; empty for the file itself."""
    problem: str
    suggestion: str | None = None
    is_override: bool = False
    """Whether the key was set on the command line, so that no line of the file is to blame."""

    def __str__(self) -> str:
        hint = f"; {self.suggestion}" if self.suggestion else ""
        return f"{self.problem}{hint}"

    @property
    def place(self) -> str:
        """Say where in the file, for a person."""
        if self.is_override:
            return "override"
        return f"line {self.line}" if self.line else "-"

    def to_json(self) -> dict[str, str | int | None]:
        """Return what `check --json` prints."""
        return {
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "problem": self.problem,
            "suggestion": self.suggestion,
        }


class PeftkitError(Exception):
    """Base of every error a user can cause; printed without a traceback.

    Args:
        message: what happened and where, with the value shown.
        hint: one concrete step that gets the user out.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.hint}" if self.hint else self.message


class UsageError(PeftkitError, ValueError):
    """Raised for a command line that cannot be meant; change the arguments."""

    exit_code = 2


class RecipeError(PeftkitError, ValueError):
    """Raised when a recipe has problems; carries all of them, each with its line."""

    exit_code = 2

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__(render_problems(file, problems))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, list[Problem]]]:
        """Say how another process makes it again: not from its text, as other errors are."""
        return type(self), (self.file, self.problems)


class DataError(PeftkitError, ValueError):
    """Raised when rows are missing, malformed, empty or entirely masked; mend the data."""

    exit_code = 3


class EmptyValueError(DataError):
    """Raised for a row that lacks a text, a label or an answer; `data.rows.empty` may drop it."""


class ArtefactError(PeftkitError, ValueError):
    """Raised when a model, adapter or run directory is broken, foreign or not verified."""

    exit_code = 4


class ResourceError(PeftkitError, RuntimeError):
    """Raised when memory, disk or a device does not suffice."""

    exit_code = 5


class DivergedError(PeftkitError, ArithmeticError):
    """Raised when the loss is no longer a number; the last good checkpoint is kept."""

    exit_code = 6


class NetworkError(PeftkitError, ConnectionError):
    """Raised when the Hub cannot be reached, or says no to these credentials."""

    exit_code = 7


class StoppedError(PeftkitError):
    """Raised after a signal once a checkpoint is on disk; the same command resumes."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, or else the error's kind."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def render_problems(file: str, problems: list[Problem]) -> str:
    """Lay problems out as aligned lines under the file's name."""
    shown = problems[:_MOST_SHOWN]
    noun = "problem" if len(problems) == 1 else "problems"
    places = [p.place for p in shown]
    width_place = max((len(place) for place in places), default=0)
    width_key = max((len(p.key) for p in shown), default=0)
    rows = [
        f"  {place:<{width_place}}  {p.key:<{width_key}}  {p}"
        for place, p in zip(places, shown, strict=True)
    ]
    if len(problems) > len(shown):
        rows.append(f"  and {len(problems) - len(shown):,} more")
    return "\n".join([f"{file}: {len(problems)} {noun}", *rows])
