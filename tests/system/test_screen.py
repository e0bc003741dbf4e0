"""Plain lines without a terminal, a bar with one, and metrics that survive."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from peftkit.errors import ResourceError
from peftkit.system.screen import (
    MetricsFile,
    Reading,
    Screen,
    SteadyConsole,
    TrainingBar,
    writing,
)

READING = Reading(loss=1.5, tokens_per_second=2345.6, peak_bytes=1 << 30)


class Gone(io.StringIO):
    """Be a terminal that hung up."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def _train(console: Console, total: int) -> None:
    bar = TrainingBar(Screen(console))
    bar.start(step=0, total=total)
    for step in range(1, total + 1):
        bar.advance(step, READING)
    bar.stop()


def test_without_a_terminal_some_twenty_plain_lines_are_printed() -> None:
    console = Console(file=io.StringIO(), width=80)
    _train(console, 1000)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("step 1/1000  loss 1.5000  2,346 tokens/s  1.00 GiB peak")
    assert lines[-1] == "step 1000/1000  loss 1.5000  2,346 tokens/s  1.00 GiB peak"
    assert 20 <= len(lines) <= 22
    assert "\x1b" not in console.file.getvalue()


@pytest.mark.parametrize("width", [40, 120])
def test_a_terminal_gets_a_bar_with_its_reading(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    _train(console, 30)
    text = console.file.getvalue()
    assert "30/30" in text
    if width == 120:
        assert "2,346 tokens/s" in text


def test_a_notebook_gets_text_of_which_it_makes_one_block(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    screen = Screen()
    screen.say("  decided  it")
    with screen.counting("loading") as count:
        count("rows", 1, 2)
    assert capsys.readouterr().out == "  decided  it\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    _train(console, 3)
    assert "\x1b[3" not in console.file.getvalue().replace("\x1b[?", "")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_reader_that_went_away_stops_nothing(is_terminal: bool) -> None:
    console = SteadyConsole(file=Gone(), force_terminal=is_terminal, width=80)
    Screen(console).say("hello")
    _train(console, 3)


def test_brackets_in_a_line_are_no_markup() -> None:
    console = Console(file=io.StringIO(), width=10)
    Screen(console).say("[red]/a/long/path/that/is/not/broken[/red]")
    assert console.file.getvalue() == "[red]/a/long/path/that/is/not/broken[/red]\n"


def test_metrics_are_json_a_line_and_have_no_nan(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "m.jsonl").opened() as metrics:
        metrics.append({"step": 1, "loss": 0.5, "grad_norm": float("inf")})
        on_disk = (tmp_path / "m.jsonl").read_text()
    assert json.loads(on_disk) == {"step": 1, "loss": 0.5, "grad_norm": None}


def test_a_write_that_fails_names_its_file(tmp_path: Path) -> None:
    expected = r"cannot write .*x: No space left on device"
    with pytest.raises(ResourceError, match=expected), writing(tmp_path / "x"):
        raise OSError(28, "No space left on device")
