"""The command that writes a job system's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftkit.cli import completion
from peftkit.cli.app import EngineName, Overrides, RecipeFile, app, say
from peftkit.cli.terminal import note

if TYPE_CHECKING:
    from peftkit.plugins import Rendered


@app.command()
def launch(
    recipe: RecipeFile,
    on: Annotated[
        str,
        typer.Option(
            help="The job system: slurm, skypilot, kubernetes, ray.",
            autocompletion=completion.complete_scheduler,
        ),
    ],
    overrides: Overrides = None,
    machines: Annotated[int, typer.Option(min=1, help="How many machines.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Processes on each machine: its GPUs.")] = 1,
    engine: EngineName = None,
    grace: Annotated[
        int, typer.Option(min=1, help="Seconds between the signal and the end of a run.")
    ] = 120,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="KEY=VALUE", help="Of the job system, e.g. time=8:00:00"
        ),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run", help="Run directory; runs/NAME otherwise.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; stdout otherwise.")] = None,
) -> None:
    """Write the file by which a job system runs a recipe, and resumes it after each stop."""
    from peftkit.launch import Machines
    from peftkit.launch import launch as render
    from peftkit.recipe.load import load_recipe

    rendered = render(
        recipe,
        load_recipe(recipe, overrides or ()),
        on,
        Machines(machines, processes, engine, grace),
        overrides=overrides or (),
        out=run_dir,
        options=options or (),
    )
    _give(rendered, out)


def _give(rendered: Rendered, out: Path | None) -> None:
    """Print or write a job's file, and say how it is submitted."""
    from peftkit.launch import write_file

    if out is None:
        say(rendered.text.rstrip("\n"))
    else:
        write_file(rendered, out)
    for line in rendered.notes:
        note(line)
    submit = rendered.submitted_by.replace("FILE", "FILE" if out is None else str(out))
    note(f"submit it: {submit}")
