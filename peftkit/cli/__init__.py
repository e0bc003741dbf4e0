"""The command line: each command parses, calls one function, prints."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import typer

from peftkit.cli import artefacts, jobs, memory, recipes, runs  # noqa: F401 - each registers its commands
from peftkit.cli.app import CommandLineError, app, explain_failure, explain_usage, print_error
from peftkit.errors import ArtefactError, PeftkitError, RecipeError, UsageError
from peftkit.system.last_failure import keep_failure
from peftkit.system.launcher import leave_for_launcher
from peftkit.system.process import this_process
from peftkit.system.signals import SIGNALS

INTERRUPTED = 130
SECONDS_FOR_LAST_WORDS = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with a documented exit code.

    Args:
        arguments: what follows the program's name; this process's own when absent.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What this terminal's encoding lacks is shown as an escape, not refused.
        sys.stdout.reconfigure(errors="backslashreplace")
    interrupt = Interrupt()
    with interrupt.caught():
        code = _run(
            [argument for argument in given if argument != "--traceback"],
            interrupt,
            with_traceback="--traceback" in given,
        )
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has gone. What is still buffered goes nowhere, so that Python does
        # not complain about it while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


class Interrupt:
    """Leave at a signal as if at an error, so that what is half written goes, and remember it.

    Ctrl-C raises KeyboardInterrupt, SIGTERM and SIGHUP raise SystemExit with 128 + their number.

    The stack's lazy imports turn what interrupts them into errors of their own ("Could not import
    module ..."), which would blame the recipe or the installation.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code of the first signal that came."""

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; a run's own handler takes its place while it trains."""
        is_first, self.code = self.code is None, self.code or 128 + number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if is_first:  # a second SIGTERM or SIGHUP is the same wish again
            raise SystemExit(self.code)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch signals inside, but those that this process was told to ignore."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.getsignal(number) for number in SIGNALS}
        ours = [n for n in SIGNALS if earlier[n] in (signal.SIG_DFL, signal.default_int_handler)]
        for number in ours:
            signal.signal(number, self.receive)
        try:
            yield
        finally:
            for number in ours:
                signal.signal(number, earlier[number])


def _run(arguments: Sequence[str], interrupt: Interrupt, *, with_traceback: bool) -> int:
    """Run one command line and return its exit code, having printed why it failed."""
    try:
        words = ["--traceback"] * with_traceback + [*arguments]
        code: int = app(args=words, prog_name="peftkit", standalone_mode=False) or 0
        if code == RecipeError.exit_code and (meant := _meant(arguments)):
            typer.echo(f"  try: {meant}", err=True)
        return code
    except (KeyboardInterrupt, typer.Abort):
        return interrupt.code or INTERRUPTED
    except SystemExit as left:
        return interrupt.code or int(left.code or 0)
    except Exception as error:
        if interrupt.code is not None:
            return interrupt.code
        if with_traceback:
            raise
        failure = _explain(error, arguments)
        if isinstance(failure, (UsageError, ArtefactError, RecipeError)):
            failure.hint = _meant(arguments) or failure.hint
        _say_failure(failure, as_json="--json" in arguments)
        return failure.exit_code


def _say_failure(failure: PeftkitError, *, as_json: bool) -> None:
    """Print why a command failed; of a launcher's processes the main one speaks.

    The launcher knows what the others left, and ends all of them as soon as one is out: they give
    the main one the time to write down how the run ended.
    """
    left = leave_for_launcher(str(failure), failure.exit_code)
    if left and not this_process().is_main:
        time.sleep(SECONDS_FOR_LAST_WORDS)
    else:
        print_error(failure, as_json=as_json)


def _explain(error: Exception, arguments: Sequence[str]) -> PeftkitError:
    """Say what an error means; a bug of ours is kept for a report."""
    if isinstance(error, PeftkitError):
        return error
    if isinstance(error, CommandLineError):
        return explain_usage(error)
    failure = explain_failure(error)
    if failure.exit_code == PeftkitError.exit_code:
        keep_failure(arguments, error)
    return failure


def _meant(arguments: Sequence[str]) -> str | None:
    """Return the command that was probably meant by one that was refused."""
    from peftkit.cli.meant import command_for

    with suppress(OSError, PeftkitError):  # of a word that cannot even be looked at
        return command_for(typer.main.get_command(app), arguments)
    return None
