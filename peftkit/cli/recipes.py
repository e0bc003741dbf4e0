"""Commands about recipes: what can be said, and whether it is said right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftkit.cli import completion
from peftkit.cli.app import Json, app, print_json, say, show
from peftkit.cli.terminal import busy
from peftkit.errors import Problem, RecipeError, ResourceError, UsageError, render_problems

if TYPE_CHECKING:
    from peftkit.plugins import Machine


@app.command()
def init(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="JSONL, JSON, CSV, Parquet, text; or another tool's config."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The recipe to write.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="The task, when it cannot be guessed.", autocompletion=completion.complete_task
        ),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Name a column.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option("--from", metavar="TOOL", help="Whose config it is.")
    ] = None,
) -> None:
    """Look at a data file, or at another tool's config, and write the recipe for it."""
    from peftkit.importers.writing import import_config
    from peftkit.init import init as write_recipe

    imported = None if task or columns else import_config(data, out=out, tool=tool)
    if imported is not None:
        say(str(imported))
        return
    say(str(write_recipe(data, out=out, task=task, columns=columns or ())))


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE... [KEY=VALUE]...", help="Recipes, or folders of them."),
    ],
    build: Annotated[
        bool, typer.Option("--build", help="Construct the native objects too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find every problem of a recipe, each with its line."""
    from peftkit.check import check_files, expand

    overrides = [file for file in files if "=" in file and not Path(file).exists()]
    recipes = expand([Path(file) for file in files if file not in overrides])
    if not recipes:
        raise UsageError(f"{overrides[0]} is no recipe", hint=f"peftkit check FILE {overrides[0]}")
    hints: list[str] = []
    machine = _machine() if build else None
    problems = check_files(recipes, overrides, machine=machine, hints=hints)
    if as_json:
        print_json([problem.to_json() for problem in problems])
    else:
        _print_check(recipes, problems)
        for hint in hints:
            say(f"hint: {hint}")
    if problems:
        raise typer.Exit(RecipeError.exit_code)


@app.command()
def explain(
    key: Annotated[
        str,
        typer.Argument(
            help="e.g. adapter.lora.r, method.sft, recipe.",
            autocompletion=completion.complete_key,
        ),
    ] = "recipe",
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the recipe's JSON Schema.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Explain any key of a recipe, ours or a library's."""
    from peftkit import explain as explaining

    if json_schema:
        print_json(explaining.json_schema())
        return
    explanation = explaining.explain(key)
    show(explaining.render(explanation), explanation.to_json(), as_json)


@app.command()
def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Copy this recipe here.", autocompletion=completion.complete_shipped),
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder to copy into.")] = Path(),
    as_json: Json = False,
) -> None:
    """List the shipped recipes, or copy one to start from."""
    from peftkit.recipes import copy_recipe, render_recipes, shipped_recipes, to_json

    if name is not None:
        say(f"wrote {copy_recipe(name, to)}")
        return
    shipped = shipped_recipes()
    show(render_recipes(shipped), to_json(shipped), as_json)


@app.command()
def plugins(as_json: Json = False) -> None:
    """List what recipes can name, and where it comes from."""
    from peftkit.cli.plugins_table import render_plugins
    from peftkit.plugins import all_plugins

    found = all_plugins()
    show(render_plugins(found), [plugin.to_json() for plugin in found], as_json)


@app.command()
def doctor(
    hub: Annotated[bool, typer.Option("--hub", help="Try to reach the Hub, too.")] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Write one file for whoever mends a problem: no secrets, no rows of data.",
        ),
    ] = False,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="RUN", help="The run that went wrong.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what works in this environment, each thing really tried."""
    from peftkit import doctor as examining

    if run is not None and not report:
        raise UsageError("--run says which run a report is of", hint="add --report")
    with busy("trying what works here"):
        found = examining.doctor(hub=hub)
    if report:
        file = examining.write_problem_report(found, run)
        say(f"wrote {file}: read it before you send it to anybody")
        return
    show(examining.render_doctor(found), found.to_json(), as_json)
    if not found.is_healthy:
        raise typer.Exit(ResourceError.exit_code)


def _machine() -> Machine:
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    from peftkit.system.machine import describe_machine

    return describe_machine()


def _print_check(recipes: Sequence[Path], problems: Sequence[Problem]) -> None:
    for recipe in recipes:
        own = [problem for problem in problems if problem.file == str(recipe)]
        say(render_problems(str(recipe), own) if own else f"{recipe}: ok")
