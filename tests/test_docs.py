"""README and docs say what is so: commands parse, links lead on, tables are the tool's own."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from fences import BLOCK, COMMANDS, NOT_RUN, NOT_RUN_PAGES, PAGES, ROOT, fences, why_not_run

from peftkit.cli import app

VERB = re.compile(r"`peftkit ((?:--?[\w-]+ )*[a-z]\w*(?:[^`\n]*))`")
WORDS = {"RECIPE": "r.yaml", "FILE...": "r.yaml", "DATA": "d.jsonl", "RUN": "run", "KEY": "name",
         "DIR": "run", "NAME": "summarize-lora", "VERB": "doctor",
         "OWNER/NAME": "owner/name"}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """Hold a command line with where it stands."""

    page: Path
    text: str
    is_whole: bool = True
    """Whether its arguments are all there: running text may only name a verb or an option."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text}"


def commands(page: Path) -> Iterator[Line]:
    """Give every command line of ours, from blocks and from running text."""
    for fence in fences(page, *COMMANDS):
        for command in fence.commands:
            # A quoted argument may go on over several lines.
            for text in re.findall(
                r"(?:^|&& |do |bin/)peftkit ((?:\"[^\"]*\"|[^\n&#;\"])*)", command, re.M
            ):
                yield Line(page, text.strip())
    without_blocks = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for text in VERB.findall(without_blocks):
        yield Line(page, text.strip(), is_whole=False)


LINES = [line for page in PAGES for line in commands(page)]


def command_of(arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the command that these arguments name, and what is left for it to parse."""
    import typer

    command: Any = typer.main.get_command(app)
    while arguments and hasattr(command, "commands"):
        if arguments[0].startswith("-"):
            options = {name for parameter in command.params for name in parameter.opts}
            assert arguments[0] in options, f"no such option {arguments[0]}"
            arguments = arguments[1:]
            continue
        if arguments[0] not in command.commands:
            assert getattr(command, "invoke_without_command", False), arguments[0]
            break
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_parses(line: Line) -> None:
    words = [WORDS.get(word, word) for word in shlex.split(line.text)]
    command, rest = command_of(words)
    if line.is_whole:
        # Raises for an option that the command lacks, or a value that it does not take.
        command.make_context(command.name, [*rest])  # it takes the list apart
    options = {name for parameter in command.params for name in (*parameter.opts, "--help")}
    ours = rest[: rest.index("--")] if "--" in rest else rest  # what follows is another program's
    assert {word.partition("=")[0] for word in ours if word.startswith("-")} <= options


def test_there_are_commands_to_parse() -> None:
    assert len(LINES) >= 40
    verbs = {line.text.split()[0] for line in LINES}
    assert {"run", "check", "data", "init", "generate", "evaluate", "plugins", "runs"} <= verbs


HELD: dict[str, Callable[[str], Any]] = {
    "python": lambda text: compile(text, "page", "exec"),
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,  # and checked as a recipe, below
    "text": str,  # compared with what commands print, where they are run
}
"""Language of a block that holds no commands -> what its text must be."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_run_or_checked(page: Path) -> None:
    """A new block of another language, or a command that nothing knows, fails here."""
    has_printed = False
    for fence in fences(page):
        if fence.language not in COMMANDS:
            assert fence.language in HELD, f"{fence} says {fence.language!r}: what checks that?"
            assert fence.language != "text" or has_printed, f"{fence} follows no command"
            HELD[fence.language](fence.text)
        for command in fence.commands if fence.language in COMMANDS else ():
            done = subprocess.run(["bash", "-n"], input=command, text=True, check=False)
            assert done.returncode == 0, f"{fence}: {command}"
            is_ours = re.match(r"peftkit |cat > |for \w+ in .*; do peftkit ", command)
            assert is_ours or why_not_run(page, command), f"{fence}: nothing runs {command}"
            has_printed = True
    text = page.read_text(encoding="utf-8")
    for script in re.findall(r"python3? ((?:benchmarks|tools)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), f"{page.name} names {script}"


def test_no_reason_is_left_over() -> None:
    every = [
        command for page in PAGES for one in fences(page, *COMMANDS) for command in one.commands
    ]
    assert [what for what in NOT_RUN if not any(re.search(what, one) for one in every)] == []
    assert {page.parent.name for page in PAGES} >= {*NOT_RUN_PAGES}
    for why in (*NOT_RUN.values(), *NOT_RUN_PAGES.values()):
        assert all((ROOT / file).is_file() for file in re.findall(r"tests/[\w/]+\.py", why)), why


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(file), f"{target}: {file.name} has no such heading"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_opens_with_a_working_command(page: Path) -> None:
    opening = page.read_text(encoding="utf-8").split("\n\n")[1]
    assert re.match(r"```(bash)?\n.*peftkit ", opening, re.DOTALL)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"docs/{page.name}" in readme, "README does not lead here"


def table_rows(page: Path, first: str) -> list[list[str]]:
    """Return the rows of the table whose first heading is this, cell by cell."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_the_readme_lists_every_command_and_no_other() -> None:
    import typer

    group: Any = typer.main.get_command(app)
    cells = [row[0] for row in table_rows(ROOT / "README.md", "command")]
    named = [word for cell in cells for word in re.findall(r"`(?:peftkit )?(\w+)", cell)]
    assert sorted(named) == sorted(group.commands)


@pytest.mark.parametrize(("heading", "group"), [("`source:`", "sources"), ("`task:`", "tasks")])
def test_tables_of_plugins_are_complete(heading: str, group: str) -> None:
    cells = [row[0] for row in table_rows(ROOT / "docs" / "data.md", heading)]
    named = [re.findall(r"`(\w+):", cell)[0] for cell in cells]
    installed = [
        point.name
        for point in entry_points(group=f"peftkit.{group}")
        if point.dist is not None and point.dist.name == "peftkit"
    ]
    assert set(named) == set(installed)


def test_the_refused_adapters_are_those_that_the_page_names() -> None:
    from peftkit.plugins import find, plugin_names

    kinds = {name: find("adapters", name) for name in plugin_names("adapters")}
    refused = {name for name, kind in kinds.items() if getattr(kind, "refused", None)}
    page = ROOT / "docs" / "adapters.md"
    cells = [row[0] for row in table_rows(page, "method | why")]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == refused
    counts = re.search(r"Of the (\d+) types of peft 0\.21, (\d+) train", page.read_text("utf-8"))
    assert counts is not None
    num_types = len(kinds) - 1  # `full` is none of peft's
    assert [int(n) for n in counts.groups()] == [num_types, num_types - len(refused)]


def test_the_devices_and_keys_of_a_grid_are_those_that_the_page_names() -> None:
    from dataclasses import fields

    from peftkit.benching.grid import Grid
    from peftkit.planning.devices import find, known

    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    listed = re.search(r"Known are (.*?), and each under", page, re.DOTALL)
    assert listed is not None
    names = re.findall(r"`([^`]+)`", listed[1])
    assert [find(name) for name in names] == list(known())
    rows = table_rows(ROOT / "docs" / "memory.md", "key | default")
    assert [row[0].strip("`") for row in rows] == [field.name for field in fields(Grid)]


def test_the_audit_defaults_are_those_of_the_code() -> None:
    from peftkit.recipe.schema import AuditSection

    rows = table_rows(ROOT / "docs" / "data.md", "`data.audit`")
    named = {row[0].strip("`"): float(row[1]) for row in rows}
    assert AuditSection(**named) == AuditSection()
    assert named.keys() == AuditSection.__dataclass_fields__.keys()


def test_what_the_page_says_of_rows_is_the_codes() -> None:
    from peftkit.recipe.schema import RowsSection

    rows = table_rows(ROOT / "docs" / "data.md", "`data.rows`")
    plain = {"null": None, "4": 4.0}
    named = {row[0].strip("`"): plain.get(row[1], row[1]) for row in rows}
    assert RowsSection(**named) == RowsSection()
    assert named.keys() == RowsSection.__dataclass_fields__.keys()


def test_recipes_in_the_docs_pass_the_gate(tmp_path: Path) -> None:
    """A whole recipe is checked; a fragment is put into a whole one first."""
    from peftkit.benching.grid import cells, read_grid
    from peftkit.recipe.load import load_recipe

    whole = yaml.safe_load((ROOT / "recipes" / "summarize-lora.yaml").read_text(encoding="utf-8"))
    (tmp_path / "articles.jsonl").write_text('{"article": "a", "highlights": "b"}\n')
    (tmp_path / "own.jsonl").write_text('{"article": "a", "highlights": "b"}\n')
    (tmp_path / "faq.csv").write_text("question,answer\na,b\n")
    (tmp_path / "runs" / "first").mkdir(parents=True)
    checked = 0
    for page in PAGES:
        for fence in fences(page, "yaml"):
            content = yaml.safe_load(fence.text)
            if content is None:
                continue  # a comment alone, for editors
            file = tmp_path / "r.yaml"
            if "models" in content:
                file.write_text(fence.text, encoding="utf-8")
                assert list(cells(read_grid(file), "page"))
                continue
            is_data = set(content) <= {"source", "splits", "task", "audit", "rows", "dialogue"}
            below = {"data": {**whole["data"], **content}} if is_data else content
            sections = {**whole, **below}
            file.write_text(yaml.safe_dump(sections), encoding="utf-8")
            load_recipe(file)
            checked += 1
    assert checked >= 5


def test_the_exit_codes_stand_wherever_codes_are_listed() -> None:
    from peftkit import errors

    codes = {kind.exit_code for kind in errors.PeftkitError.__subclasses__()} | {0, 1}
    codes |= {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    for file in ("README.md", "docs/runs.md"):
        text = (ROOT / file).read_text(encoding="utf-8")
        listed = re.search(
            r"[Ee](?:very e)?xit codes?: (0 done.*?130 interrupted[^.]*)\.", text, re.DOTALL
        )
        assert listed is not None, file
        assert {int(code) for code in re.findall(r"\b\d+\b", listed.group(1))} == codes
