"""Commands about runs: make one, look at one, use one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftkit.cli.app import Json, Overrides, RecipeFile, app, show


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME otherwise.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Do all but train.")] = False,
) -> None:
    """Train, evaluate and report; the same command resumes a stopped run."""
    from peftkit.recipe.load import load_recipe
    from peftkit.run import run as run_recipe

    run_recipe(load_recipe(recipe, overrides or ()), out=out, dry_run=dry_run)


@app.command()
def data(
    recipe: RecipeFile,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="Which split's rows to show.")] = "train",
    rows: Annotated[int, typer.Option(help="How many rows to show token by token.")] = 3,
    as_json: Json = False,
) -> None:
    """Audit the data and show rows token by token, trained tokens coloured."""
    from peftkit.audit_view import render_data, show_data
    from peftkit.recipe.load import load_recipe

    view = show_data(load_recipe(recipe, overrides or ()), split=split, num_rows=rows)
    show(render_data(view), view.to_json(), as_json)
