"""Commands about runs: make one, look at one, use one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peftkit.cli import completion
from peftkit.cli.app import (
    AllowOtherBase,
    Base,
    EngineName,
    Json,
    Overrides,
    RecipeFile,
    RunPath,
    app,
    global_options,
    print_json,
    say,
    show,
)
from peftkit.cli.terminal import Typewriter, ask, busy, counting, note, read_prompt
from peftkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from peftkit.plugins import Answerer

Untrained = Annotated[
    bool, typer.Option("--untrained", help="Ask the base as it was before training.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME=TEXT", help="More of the question: context=@page.txt"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first rows of the split.")]


Launcher = Literal["accelerate"]

AllowDrift = Annotated[
    bool,
    typer.Option(
        "--allow-drift",
        help="Go on although recipe, rows, base, stack or device changed; it is recorded.",
    ),
]


@app.command()
def run(
    context: typer.Context,
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's YAML file, or a run to go on with.",
            autocompletion=completion.complete_recipe_or_run,
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME otherwise.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do all but train.")] = False,
    allow_drift: AllowDrift = False,
    launcher: Annotated[
        Launcher | None,
        typer.Option(
            "--launch", help="Start it in several processes: ... --launch accelerate -- OPTIONS."
        ),
    ] = None,
    engine: EngineName = None,
) -> None:
    """Train, evaluate, report; go on where a stopped run ended.

    With --launch accelerate, what follows -- are options of `accelerate launch`, as in
    `peftkit run r.yaml --launch accelerate --engine fsdp2 -- --num_processes 2`.
    """
    from peftkit.recipe.load import load_recipe
    from peftkit.run import run as run_recipe
    from peftkit.rundir.paths import RunDir

    keys, behind = _split(overrides or (), launcher, engine)
    earlier = RunDir(recipe)
    is_run = earlier.resolved.is_file()
    found = load_recipe(earlier.resolved if is_run else recipe, keys)
    out_here = recipe if is_run and out is None else out
    if launcher is None:
        run_recipe(found, out=out_here, dry_run=dry_run, allow_drift=allow_drift)
        return
    from peftkit.launching.launched import LaunchedRun, launch
    from peftkit.launching.words import run_options

    options = run_options(out, dry_run=dry_run, allow_drift=allow_drift)
    asked = LaunchedRun(
        recipe, tuple(keys), engine, tuple(behind), options, global_options(context)
    )
    raise typer.Exit(launch(asked, found, RunDir(out_here or Path("runs") / found.name)))


def _split(
    words: Sequence[str], launcher: str | None, engine: str | None
) -> tuple[list[str], list[str]]:
    """Part KEY=VALUE from what stood behind `--`, and refuse the latter without a launcher."""
    from peftkit.launching.words import split_words

    keys, behind = split_words(words)
    if launcher is None and (behind or engine):
        given = " ".join(behind) or f"--engine {engine}"
        raise UsageError(
            f"{given} is for a run in several processes",
            hint="--launch accelerate -- --num_processes 2",
        )
    return keys, behind


@app.command()
def data(
    recipe: RecipeFile,
    overrides: Overrides = None,
    split: Annotated[
        str | None, typer.Option(help="Only this one; those a run uses otherwise.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows of each split to show as tokens.")] = 1,
    as_json: Json = False,
) -> None:
    """Audit the data, and show which tokens are trained."""
    from peftkit.data import render_data, show_data
    from peftkit.recipe.load import load_recipe

    with busy("reading the data"):
        view = show_data(load_recipe(recipe, overrides or ()), split=split, num_rows=rows)
    show(render_data(view), view.to_json(), as_json)
    if view.breaches:
        raise typer.Exit(DataError.exit_code)


@app.command()
def evaluate(
    run: RunPath,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="Any split; the recipe's otherwise.")] = None,
    limit: Limit = None,
    base: Base = None,
    allow_other_base: AllowOtherBase = False,
    as_json: Json = False,
) -> None:
    """Score base and tuned on any split."""
    from peftkit.evaluate import evaluate_run, render_scores
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    with counting("loading the run") as progress:
        scores, file = evaluate_run(
            run,
            split=split,
            limit=limit,
            overrides=overrides or (),
            base=base,
            allow_other_base=allow_other_base,
            progress=progress,
        )
    show(render_scores(scores), {"schema_version": 1, **scores.to_json()}, as_json)
    if not as_json:
        say(f"wrote {file}")


@app.command()
def generate(
    run: RunPath,
    prompt: Annotated[
        str | None, typer.Argument(help="What to answer; a conversation, or stdin, without.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Answer each row of a file instead, or line of a text."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the file's answers go.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="e.g. max_new_tokens=128"),
    ] = None,
    columns: Columns = None,
    system: Annotated[
        str | None,
        typer.Option(help="System message; that of the training otherwise, none with ''."),
    ] = None,
    untrained: Untrained = False,
    base: Base = None,
    allow_other_base: AllowOtherBase = False,
    as_json: Json = False,
) -> None:
    """Answer a prompt or a file with what a run trained, or chat."""
    if out is not None and file is None:
        raise UsageError("--out takes the answers of a --file", hint="add --file ROWS.jsonl")
    if file is not None and prompt is not None:
        raise UsageError("a prompt and a --file at once", hint="give one of them")
    given = _read_columns(columns or ())
    answerer = _open(
        run,
        options=options or (),
        untrained=untrained,
        base=base,
        system=system,
        allow_other_base=allow_other_base,
    )
    if file is not None:
        _answer_file(answerer, file, out)
    elif prompt is None and sys.stdin.isatty():
        _chat(answerer)
    else:
        asked = sys.stdin.read() if prompt is None else prompt
        _answer(answerer, asked, given, as_json=as_json)


def _open(run: Path, **options: Any) -> Answerer:
    from peftkit.generate import open_answerer
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    with busy("loading the run"):
        return open_answerer(run, **options)


def _read_columns(columns: Sequence[str]) -> dict[str, str]:
    """Read `NAME=TEXT`, or `NAME=@FILE`, of columns that stand beside a prompt."""
    given = {}
    for column in columns:
        name, equals, text = column.partition("=")
        if not equals:
            raise UsageError(f"{column!r} is not NAME=TEXT", hint="--column context=@page.txt")
        if text.startswith("@"):
            try:
                text = Path(text[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--column {name}: {text[1:]} cannot be read: {error}") from None
        given[name] = text
    return given


def _answer(answerer: Answerer, prompt: str, given: Mapping[str, str], *, as_json: bool) -> None:
    from peftkit.scoring.asked import ask_text

    question = ask_text(answerer, prompt, given)
    if as_json:
        reply = answerer.reply(question, lambda _: None)
        print_json({"prompt": prompt, **reply.to_json()})
        return
    reply = answerer.reply(question, Typewriter())
    say()
    shortened = ("the document was shortened to leave room",) if question.is_shortened else ()
    for line in (*shortened, *reply.notes):
        note(line)


def _chat(answerer: Answerer) -> None:
    from peftkit.generate import Conversation

    conversation = Conversation(answerer)
    turns = "earlier turns count" if conversation.is_kept else "each prompt stands alone"
    note(f"{turns}; Ctrl-C stops an answer, an empty line leaves")
    while prompt := read_prompt():
        notes: tuple[str, ...] = ("stopped",)
        try:
            notes = conversation.say(prompt, Typewriter()).notes
        except KeyboardInterrupt:
            conversation.forget_last()
        say()
        for line in notes:
            note(line)


def _answer_file(answerer: Answerer, file: Path, out: Path | None) -> None:
    from peftkit.generate import answer_file, open_out, read_questions

    asked = read_questions(answerer, file)
    if num_shortened := sum(question.is_shortened for _, question in asked):
        note(f"{num_shortened} of {len(asked)} documents are shortened to leave room")
    if out is None:
        answer_file(answerer, asked, sys.stdout)
        return
    with open_out(out) as stream, counting("answering") as count:
        answer_file(answerer, asked, stream, progress=lambda *at: count("answers", *at))
    say(f"wrote {out}, {len(asked):,} answers")


@app.command()
def report(run: RunPath) -> None:
    """Write a run's page again, from its files."""
    from peftkit.report import write_report
    from peftkit.rundir.paths import RunDir

    say(str(write_report(RunDir(run))))


runs_app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
app.add_typer(runs_app, name="runs", help="List runs, compare them, or delete one.")


@runs_app.callback()
def runs(
    context: typer.Context,
    root: Annotated[Path, typer.Option(help="The folder that holds the runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List runs, compare them, or delete one."""
    context.obj = root
    if context.invoked_subcommand is not None:
        return
    from peftkit.runs import list_runs, render_runs, runs_to_json

    found = list_runs(root)
    show(render_runs(found), runs_to_json(found), as_json)


@runs_app.command()
def compare(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Two runs or more.",
            autocompletion=completion.complete_run_name,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show what runs differ in, what they took and what they scored."""
    from peftkit.runs import compare_runs, comparison_to_json, render_comparison

    found = compare_runs(paths, context.obj)
    show(render_comparison(found), comparison_to_json(found), as_json)


@runs_app.command()
def delete(
    context: typer.Context,
    run: RunPath,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a run: its checkpoints, its adapter and its scores."""
    from peftkit.runs import check_deletable, delete_run
    from peftkit.system.units import gibibytes

    found = check_deletable(run, context.obj)
    if not yes:
        score = "" if found.tuned is None else f", {found.metric} {found.tuned:.3f}"
        what = f"{run}: {found.state}, step {found.step}{score}, {gibibytes(found.num_bytes)}"
        if not ask(f"{what}\ndelete it?", otherwise="--yes"):
            say("kept")
            return
    num_bytes = delete_run(run, context.obj)
    if as_json:
        print_json({"deleted": str(run), "num_bytes": num_bytes})
    else:
        say(f"deleted {run}, {gibibytes(num_bytes)}")
