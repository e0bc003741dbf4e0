"""Commands about what was trained: merge it, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftkit.cli.app import Json, app, show
from peftkit.merging.result import Onto, To


@app.command()
def merge(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs, adapter folders or one model folder."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder, or an interrupted merge's.")],
    method: Annotated[
        str | None,
        typer.Option(help="How several are combined, e.g. '{svd: {weights: [0.7, 0.3]}}'."),
    ] = None,
    to: Annotated[To, typer.Option(help="A whole model, or one new adapter of several.")] = "base",
    base: Annotated[
        str | None,
        typer.Option(help="Folder, Hub id, ID@REVISION, embedded:NAME; the run's own otherwise."),
    ] = None,
    onto: Annotated[
        Onto | None, typer.Option(help="Which weights of a quantized base take the change.")
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Compare logits; by default up to 1 GiB."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write base + adapter as one model that plain transformers loads; combine several first."""
    from peftkit.merge import merge as merge_one
    from peftkit.merging.combine import combine
    from peftkit.reporting.merge_table import render_combination, render_merge

    if len(runs) > 1 or to == "adapter" or method is not None:
        made = combine(runs, method=method, out=out, to=to, base=base, onto=onto, verify=verify)
        show(render_combination(made), made.to_json(), as_json)
        return
    result = merge_one(runs[0], out=out, base=base, onto=onto, verify=verify)
    show(render_merge(result), result.to_json(), as_json)


@app.command()
def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run, an adapter folder or a model folder.")
    ],
    to: Annotated[str, typer.Option(help="The format: `peftkit plugins` lists them.")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. outtype=q8_0")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; exports/NAME-TO otherwise.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The adapter's base: a folder, Hub id, embedded:NAME.")
    ] = None,
    onto: Annotated[
        Onto | None, typer.Option(help="Which weights of a quantized base take the change.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a trained model for another program, and check it there."""
    from peftkit.export import export as export_model
    from peftkit.export import render_export

    result = export_model(run, to, out=out, options=options or (), base=base, onto=onto)
    show(render_export(result), result.to_json(), as_json)
