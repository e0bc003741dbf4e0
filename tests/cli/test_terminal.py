"""What is shown beside the output stays beside it, and a terminal is never driven by a model."""

from __future__ import annotations

import builtins
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.cli import terminal
from peftkit.errors import UsageError


class Tty(io.StringIO):
    """Be a terminal."""

    def isatty(self) -> bool:
        return True


@given(st.text())
def test_a_terminal_gets_nothing_that_moves_its_cursor(text: str) -> None:
    shown = terminal.printable(text)
    assert all(sign.isprintable() or sign in "\n\t" for sign in shown)
    if all(sign.isprintable() or sign in "\n\t" for sign in text):
        assert shown == text


def test_pieces_are_written_as_they_are_into_a_file_and_escaped_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream, expected in ((io.StringIO(), "a\x1b[2Jb"), (Tty(), "a\\x1b[2Jb")):
        monkeypatch.setattr(sys, "stdout", stream)
        write = terminal.Typewriter()
        for piece in ("a\x1b[2J", "b"):
            write(piece)
        assert stream.getvalue() == expected


def test_a_reader_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    terminal.Typewriter()("piece")


@pytest.mark.parametrize(("typed", "answer"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_no_is_the_answer_until_a_person_says_yes(
    typed: str, answer: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Tty(typed))
    assert terminal.ask("delete it?", otherwise="--yes") is answer
    assert "delete it?" in capsys.readouterr().err


def test_nobody_is_asked_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError) as caught:
        terminal.ask("delete it?", otherwise="--yes")
    assert caught.value.hint == "--yes"


def test_the_end_of_input_ends_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(_: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", lambda _: "  hello ")
    assert terminal.read_prompt() == "hello"
    monkeypatch.setattr(builtins, "input", end)
    assert terminal.read_prompt() == ""


def test_nothing_is_shown_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.busy("loading"), terminal.counting("loading") as count:
        count("answers", 1, 2)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_terminal_sees_what_goes_on_and_the_output_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.counting("loading") as count:
        count("answers", 3, 7)
    with terminal.busy("thinking"):
        pass
    assert "answers" in stream.getvalue()
    assert "3/7" in stream.getvalue()
    assert "thinking" in stream.getvalue()
    assert capsys.readouterr().out == ""


def test_a_note_stands_beside_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.note("cut")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "(cut)\n")
