"""What commands show and ask while they work: beside their output, never in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import typer

from peftkit.errors import UsageError


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Show that something takes a moment, where stderr is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(doing):
        yield


@contextmanager
def counting(doing: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar with its estimate, where stderr is a terminal; see `Screen.counting`."""
    from rich.console import Console

    from peftkit.system.screen import Screen

    with Screen(Console(stderr=True)).counting(doing) as count:
        yield count


def note(text: str) -> None:
    """Say something about the output, beside it."""
    typer.echo(f"({text})", err=True)


def ask(question: str, *, otherwise: str) -> bool:
    """Ask a person whether to go on; no is the answer of an empty line.

    Args:
        otherwise: the option that answers where nobody can be asked.

    Raises:
        UsageError: stdin is no terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{question} (nobody is there to answer)", hint=otherwise)
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def read_prompt() -> str:
    """Read a line as a person types it, with the terminal's editing keys; empty at its end."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives `input` a history and editing keys
    try:
        return input("> ").strip()
    except EOFError:
        return ""


class Typewriter:
    """Write a text piece by piece to stdout."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()

    def __call__(self, piece: str) -> None:
        """Write a piece at once; a terminal never gets a control character of a model's making."""
        with suppress(BrokenPipeError):
            sys.stdout.write(printable(piece) if self._is_terminal else piece)
            sys.stdout.flush()


def printable(text: str) -> str:
    """Return a text with its control characters, newlines and tabs apart, as escapes."""
    return "".join(
        sign
        if sign.isprintable() or sign in "\n\t"
        else sign.encode("unicode_escape", "backslashreplace").decode("ascii")
        for sign in text
    )
