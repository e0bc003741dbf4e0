"""Commands about what was trained: merge it, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftkit.cli.app import Json, app, show
from peftkit.merge.result import Onto


@app.command()
def merge(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run, an adapter folder or a model folder.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder, or an interrupted merge's.")],
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
    """Write base + adapter as one model that plain transformers loads."""
    from peftkit.merge.merge import merge as merge_adapter
    from peftkit.merge.view import render_merge

    result = merge_adapter(run, out=out, base=base, onto=onto, verify=verify)
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
    """Write a trained model in another program's format, and measure what was written."""
    from peftkit.export import export as export_model
    from peftkit.export import render_export

    result = export_model(run, to, out=out, options=options or (), base=base, onto=onto)
    show(render_export(result), result.to_json(), as_json)
