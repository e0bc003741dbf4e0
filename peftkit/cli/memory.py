"""Commands about memory: plan it, fit it, measure it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftkit.cli.app import Json, Overrides, RecipeFile, app, print_json, show

NumProcesses = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="Processes that train together, one a device."),
]


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    *,
    gpus: Annotated[
        str | None, typer.Option(metavar="GIB|NAME,...", help="e.g. 8,16,24 or a100-80.")
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Plan for this machine instead.")] = False,
    length: Annotated[
        int | None, typer.Option(min=2, help="Tokens a row, instead of the data's longest.")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(metavar="PRICE", help="Predict the run's cost at this price.")
    ] = None,
    num_processes: NumProcesses = 1,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw memory over the step: PNG or SVG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a recipe's training takes, how long, and on which devices, without running it."""
    from peftkit.plan import plan_recipe, plot_plan, render_plan
    from peftkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    planned = plan_recipe(
        loaded,
        gpus=gpus,
        here=here,
        length=length,
        price_per_hour=price_per_hour,
        num_processes=num_processes,
    )
    if plot is not None:
        plot_plan(planned.plan, plot)
    show(render_plan(planned), planned.to_json(), as_json)
    if plot is not None and not as_json:
        typer.echo(f"wrote {plot}")


@app.command()
def fit(
    recipe: RecipeFile,
    overrides: Overrides = None,
    *,
    gpu: Annotated[str, typer.Option(metavar="GIB|NAME", help="e.g. 16, or a100-80.")],
    free: Annotated[
        list[str] | None,
        typer.Option("--free", metavar="KEY", help="Let this stated key change. Repeatable."),
    ] = None,
    num_processes: NumProcesses = 1,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the recipe of the first proposal.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose the fastest changes that make a recipe fit a device."""
    from peftkit.errors import UsageError
    from peftkit.fit import fit as find_fit
    from peftkit.fit import render_fit, write_proposal
    from peftkit.memory.lengths import row_lengths
    from peftkit.planning import devices
    from peftkit.recipe.load import load_recipe

    wanted = devices.parse(gpu)
    if len(wanted) != 1:
        raise UsageError(f"--gpu {gpu} names {len(wanted)} devices", hint="fit one at a time")
    loaded = load_recipe(recipe, overrides or ())
    lengths, _ = row_lengths(loaded, wanted[0].as_machine())
    found = find_fit(
        loaded, wanted[0], free=free or (), lengths=lengths, num_processes=num_processes
    )
    if write is not None:
        write_proposal(loaded, found.proposals[0], write)
    show(render_fit(found), found.to_json(), as_json)
    if write is not None and not as_json:
        typer.echo(f"wrote {write}")


@app.command()
def bench(
    kind: Annotated[str, typer.Argument(metavar="memory|speed", help="What is measured.")],
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="A grid's YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; bench/GRID.")] = None,
    as_json: Json = False,
) -> None:
    """Run a grid of benchmarks: what was planned beside the measured."""
    from peftkit.bench import bench as run_bench
    from peftkit.bench import render_results

    results = []
    for result in run_bench(kind, grid, out=out or Path("bench") / grid.stem):
        results.append(result)
        if not as_json:
            typer.echo(f"{result.content['name']}: {result.file}")
    if as_json:
        print_json([result.content for result in results])
    else:
        show(render_results(results), None, False)
