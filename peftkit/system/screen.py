"""What a run shows while it works, and the metrics it keeps: a live bar, or plain lines."""

from __future__ import annotations

import json
import math
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from peftkit.errors import ResourceError
from peftkit.system.process import ALONE, Process
from peftkit.system.units import duration, gibibytes

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

NUM_PLAIN_LINES = 20
"""Lines that a whole training prints where there is no terminal."""
SECONDS_BETWEEN_PLAIN_LINES = 60.0
"""Longest silence of a slow training where there is no terminal."""


WIDE_COLUMNS = 80
"""Terminal width from which the bar shows everything."""


LABEL_COLUMNS = 11
"""Width of the labels (`  decided  `) that a run's lines begin with."""


class SteadyConsole(Console):
    """Go quiet when the reader has gone (`| head`); rich's own console exits with 1."""

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True


class Screen:
    """Print for people; a reader that went away, or a closed terminal, never stops a run."""

    def __init__(self, console: Console | None = None, process: Process = ALONE) -> None:
        """Print to this console, or to standard output; a process that is not the main one, not."""
        # A notebook's own rendering makes a block of every line; text is one block.
        own = SteadyConsole(highlight=False, force_jupyter=False) if console is None else console
        self.console = own
        if not process.is_main:
            self.console = SteadyConsole(quiet=True, force_terminal=False)

    def say(self, text: str = "") -> None:
        """Print a line as it is: brackets are no markup, and paths are not broken.

        A terminal gets a long line of the form `  label    text` folded below its text.
        """
        if self.console.is_terminal and text.startswith("  ") and "\n" not in text:
            text = textwrap.fill(
                text,
                self.console.width,
                subsequent_indent=" " * LABEL_COLUMNS,
                break_long_words=False,
                break_on_hyphens=False,
            )
        with suppress(OSError):
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def counting(self, doing: str) -> Iterator[Callable[[str, int, int], None]]:
        """Show a bar with its estimate on a terminal, and nothing elsewhere.

        Args:
            doing: what goes on until the first count.

        Yields: what takes each count: what is done, how many of it, and of how many.
        """
        from rich import progress

        bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        task = bar.add_task(doing, total=None)
        shown = doing

        def count(what: str, done: int, total: int) -> None:
            nonlocal shown
            with suppress(OSError):
                if what != shown:
                    shown = what
                    bar.reset(task, description=what, total=total)
                bar.update(task, completed=done)

        with suppress(OSError):
            bar.start()
        try:
            yield count
        finally:
            with suppress(OSError):
                bar.stop()


@dataclass(frozen=True)
class Reading:
    """Hold what a training step shows."""

    loss: float | None = None
    tokens_per_second: float | None = None
    peak_bytes: int | None = None

    @property
    def brief(self) -> str:
        """Return the loss alone, for a narrow terminal."""
        return "" if self.loss is None else f"loss {self.loss:.3f}"

    def __str__(self) -> str:
        parts = []
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        if self.peak_bytes is not None:
            parts.append(f"{gibibytes(self.peak_bytes)} peak")
        return "  ".join(parts)


class TrainingBar:
    """Show how far training is: a bar with its estimate on a terminal, else a line now and then."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._first = self._step = self._total = 0
        self._began = self._spoke_at = 0.0
        self._spoke_step = 0

    def start(self, *, step: int, total: int) -> None:
        """Begin at a step, 0 unless the run resumes."""
        self._first = self._step = self._spoke_step = step
        self._total = total
        self._began = self._spoke_at = time.monotonic()
        if not self._screen.console.is_terminal:
            return
        from rich import progress

        columns: list[ProgressColumn] = [
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[reading]}"),
        ]
        self._bar = progress.Progress(
            *columns, console=self._screen.console, refresh_per_second=4, expand=True
        )
        self._task = self._bar.add_task("", total=total, completed=step, reading="")
        with suppress(OSError):
            self._bar.start()

    def advance(self, step: int, reading: Reading) -> None:
        """Show a step that is done, with the last reading."""
        self._step = step
        if self._bar is not None and self._task is not None:
            with suppress(OSError):
                is_wide = self._screen.console.width >= WIDE_COLUMNS
                shown = str(reading) if is_wide else reading.brief
                self._bar.update(self._task, completed=step, reading=shown)
        elif self._is_due():
            self._spoke_at, self._spoke_step = time.monotonic(), step
            left = f"  {duration(self._seconds_left())} left" if step < self._total else ""
            self._screen.say(f"step {step}/{self._total}  {reading}{left}")

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
            self._bar = None

    def _is_due(self) -> bool:
        if self._step in (self._first + 1, self._total):
            return True
        share = (self._step - self._spoke_step) * NUM_PLAIN_LINES >= self._total
        return share or time.monotonic() - self._spoke_at >= SECONDS_BETWEEN_PLAIN_LINES

    def _seconds_left(self) -> float:
        per_step = (time.monotonic() - self._began) / max(1, self._step - self._first)
        return per_step * (self._total - self._step)


class MetricsFile:
    """Append one JSON object a logged step, each flushed, so that a kill loses none."""

    def __init__(self, file: Path, process: Process = ALONE) -> None:
        self._file, self.process = file, process
        self._stream: TextIO | None = None

    @contextmanager
    def opened(self) -> Iterator[MetricsFile]:
        """Keep the file open for a training."""
        with ExitStack() as held:
            self.process.by_main(self._open, held)
            yield self

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line; numbers that JSON has no word for (inf, nan) become null."""
        kept = {key: _finite(value) for key, value in line.items()}
        self.process.by_main(self._write, json.dumps(kept) + "\n")

    def _open(self, held: ExitStack) -> None:
        with writing(self._file):
            self._stream = held.enter_context(self._file.open("a", encoding="utf-8"))

    def _write(self, text: str) -> None:
        if self._stream is None:
            raise RuntimeError("the metrics file is not open")
        with writing(self._file):
            self._stream.write(text)
            self._stream.flush()


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turn a failing write into a ResourceError that names the file."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write {file}: {error.strerror or error}",
            hint="free disk space; the same command resumes",
        ) from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
