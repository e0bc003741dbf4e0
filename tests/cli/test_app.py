"""Every way out of the command line has its documented code, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Outcome, run_command

from peftkit import __version__, errors
from peftkit.cli.app import app, show
from peftkit.errors import Problem

VERBS = set(typer.main.get_command(app).commands)
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")


@pytest.fixture
def peftkit(capfd: pytest.CaptureFixture[str]):
    return lambda *arguments: run_command(capfd, *arguments)


@pytest.fixture
def failing(peftkit, monkeypatch: pytest.MonkeyPatch):
    """Give a function that runs a verb whose work raises an error."""

    def run(error: BaseException, *options: str) -> Outcome:
        def fail() -> None:
            raise error

        monkeypatch.setattr("peftkit.recipes.shipped_recipes", fail)
        return peftkit("recipes", *options)

    return run


def _children(*arguments: str, script: str = "", **options: Any) -> subprocess.CompletedProcess:
    code = script or f"from peftkit.cli import main; main({list(arguments)!r})"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )


def test_help_lists_every_verb_and_exit_code(peftkit) -> None:
    found = peftkit()
    assert found.code == 0
    assert found.out == peftkit("--help").out
    listed = re.findall(r"^  (\w[\w-]*)  ", found.out.partition("Commands:")[2], re.MULTILINE)
    assert set(listed) == VERBS
    assert listed.index("init") < listed.index("run") < listed.index("doctor")
    assert {
        "init", "run", "check", "explain", "recipes", "plugins", "runs", "data", "evaluate",
        "generate", "report", "doctor",
    } <= VERBS  # fmt: skip
    # No description is cut off, and no line is too wide.
    assert "..." not in found.out.partition("Commands:")[2]
    assert max(map(len, found.out.splitlines())) <= 80
    codes = {int(code) for code in re.findall(r"\b(\d+)\b", found.out.partition("Exit codes:")[2])}
    kinds = [kind for kind in vars(errors).values() if hasattr(kind, "exit_code")]
    assert codes == {kind.exit_code for kind in kinds} | {0, 130}


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(peftkit, verb: str) -> None:
    found = peftkit(verb, "-h")
    assert (found.code, found.err) == (0, "")
    assert f"Usage: peftkit {verb} " in found.out


def test_the_version(peftkit) -> None:
    assert peftkit("--version").out == f"{__version__}\n"


def test_help_and_check_import_no_stack() -> None:
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "summarize-lora.yaml"
    commands = [["--help"], ["check", str(recipe)], ["recipes"], ["plugins"], ["runs"]]
    script = (
        "import sys\nfrom peftkit.cli import main\n"
        f"for arguments in {commands!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as left: assert not left.code\n"
        f"    found = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    if found: sys.exit(f'{arguments} imports {found}')"
    )
    assert _children(script=script).stderr == ""


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values()
     if isinstance(kind, type) and issubclass(kind, errors.PeftkitError)
     and kind is not errors.RecipeError],
)  # fmt: skip
def test_every_refusal_leaves_with_its_code(failing, kind: type[errors.PeftkitError]) -> None:
    found = failing(kind("what happened", hint="what to do"))
    assert found.code == kind.exit_code
    assert found.refusal == "what happened\n  try: what to do"
    assert found.out == ""
    as_json = failing(kind("what happened", hint="what to do"), "--json")
    assert (as_json.code, as_json.err) == (kind.exit_code, "")
    assert json.loads(as_json.out) == {
        "error": "what happened", "hint": "what to do", "exit_code": kind.exit_code,
    }  # fmt: skip


def test_a_recipe_s_problems_are_data_in_json(failing) -> None:
    problem = Problem("x.yaml", 3, "adapter.lora.rr", "no such key", "did you mean r?")
    found = json.loads(failing(errors.RecipeError("x.yaml", [problem]), "--json").out)
    assert found["problems"] == [problem.to_json()]
    assert found["exit_code"] == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS])
def test_what_the_machine_refuses_is_no_bug(failing, number: int) -> None:
    found = failing(OSError(number, os.strerror(number), "some/file"))
    assert found.code == 5
    assert os.strerror(number) in found.refusal or "disk is full" in found.refusal


def test_exhausted_memory_is_no_bug(failing) -> None:
    assert failing(MemoryError()).code == 5


def test_a_bug_says_so_without_a_traceback_until_one_is_asked_for(failing) -> None:
    found = failing(ZeroDivisionError("oops"))
    assert found.code == 1
    assert found.refusal == (
        "ZeroDivisionError: oops\n"
        "  try: this is a bug in peftkit: `peftkit doctor --report` writes down what mends it,"
        " without your data; --traceback shows where it is"
    )
    assert json.loads(failing(ZeroDivisionError("oops"), "--json").out)["exit_code"] == 1
    for error in (ZeroDivisionError("oops"), errors.DataError("rows")):
        with pytest.raises(type(error)):
            failing(error, "--traceback")


def test_ctrl_c_leaves_with_130_and_no_word_more(failing) -> None:
    found = failing(KeyboardInterrupt())
    assert (found.code, found.out, found.err) == (130, "", "")


def test_ctrl_c_that_an_import_turns_into_its_own_error_is_still_ctrl_c(
    peftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_something() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise errors.UsageError("Could not import module 'Bloom'") from None

    monkeypatch.setattr("peftkit.recipes.shipped_recipes", import_something)
    found = peftkit("recipes")
    assert (found.code, found.out, found.err) == (130, "", "")
    # Nothing is left behind: the next refusal is its own, and so is this process's Ctrl-C.
    assert peftkit("chek").code == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_another_signal_unwinds_and_leaves_with_its_own_code(
    peftkit, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    left = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # again, while what was half written is taken away
            left.append("cleaned")

    monkeypatch.setattr("peftkit.recipes.shipped_recipes", work)
    found = peftkit("recipes")
    assert (found.code, found.out, found.err, left) == (code, "", "", ["cleaned"])
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chek"], "No such command 'chek'"),
        (["check"], "Missing argument"),
        (["run", "x.yaml", "--nope"], "No such option: --nope"),
        (["data", "x.yaml", "--rows", "-1"], "'--rows'"),
        (["evaluate", "x", "--limit", "0"], "'--limit'"),
        (["runs", "purge"], "No such command 'purge'"),
    ],
)
def test_a_wrong_command_line_points_to_its_help(peftkit, arguments: list, message: str) -> None:
    found = peftkit(*arguments)
    assert found.code == 2
    assert message in found.refusal
    helped = found.refusal.splitlines()[-1].removeprefix("  try: peftkit ").split()
    assert peftkit(*helped).code == 0  # the way out, followed
    as_json = peftkit(*arguments, "--json")
    assert json.loads(as_json.out)["exit_code"] == 2


def test_a_reader_that_goes_away_is_no_failure() -> None:
    script = "from peftkit.cli import main; main(['explain', '--json-schema'])"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    errors_shown = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors_shown) == (0, "")


def test_a_terminal_without_unicode_gets_escapes() -> None:
    done = _children("explain", "é", "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["error"] == "a recipe has no key 'é'"


def test_no_plugins_hides_those_of_others(
    peftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[peftkit.sources]\nrows = no_such_module:Source\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "other 1.0" in peftkit("plugins").out
    assert "other 1.0" not in peftkit("--no-plugins", "plugins").out
    assert "other 1.0" in peftkit("plugins").out


def test_content_that_is_no_string_is_printed_for_both_readers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show("[bold]text[/]", {"ü": 1}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"ü": 1}
    show("plain", {}, as_json=False)
    assert capsys.readouterr().out == "plain\n"
