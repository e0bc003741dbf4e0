"""Commands about what was trained: merge it, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peftkit.cli import completion
from peftkit.cli.app import AllowOtherBase, Base, Json, app, say, show
from peftkit.cli.terminal import ask, busy
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
    base: Base = None,
    onto: Annotated[
        Onto | None, typer.Option(help="Which weights of a quantized base take the change.")
    ] = None,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Compare logits; by default up to 1 GiB."),
    ] = None,
    allow_other_base: AllowOtherBase = False,
    as_json: Json = False,
) -> None:
    """Write base + adapter as one model that plain transformers loads; combine several first."""
    from peftkit.merge import merge as merge_one
    from peftkit.merging.combine import combine
    from peftkit.reporting.merge_table import render_combination, render_merge

    settings: dict[str, Any] = {
        "base": base,
        "onto": onto,
        "verify": verify,
        "allow_other_base": allow_other_base,
    }
    if len(runs) > 1 or to == "adapter" or method is not None:
        made = combine(runs, method=method, out=out, to=to, **settings)
        show(render_combination(made), made.to_json(), as_json)
        return
    result = merge_one(runs[0], out=out, **settings)
    show(render_merge(result), result.to_json(), as_json)


@app.command()
def export(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run, an adapter folder or a model folder.",
            autocompletion=completion.complete_run,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="The format: `peftkit plugins` lists them.",
            autocompletion=completion.complete_format,
        ),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. outtype=q8_0")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; exports/NAME-TO otherwise.")] = None,
    base: Base = None,
    onto: Annotated[
        Onto | None, typer.Option(help="Which weights of a quantized base take the change.")
    ] = None,
    allow_other_base: AllowOtherBase = False,
    as_json: Json = False,
) -> None:
    """Write a trained model for another program, and check it there."""
    from peftkit.export import export as export_model
    from peftkit.export import render_export

    result = export_model(
        run,
        to,
        out=out,
        options=options or (),
        base=base,
        onto=onto,
        allow_other_base=allow_other_base,
    )
    show(render_export(result), result.to_json(), as_json)


@app.command()
def push(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run, an adapter folder or a model folder.",
            autocompletion=completion.complete_run,
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the Hub: owner/name.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who may read a new repository.")
    ] = True,
    existing: Annotated[
        bool, typer.Option("--existing", help="Add a commit to a repository that is there.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="The commit's message.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a trained adapter or model with its card to the Hub, having listed the files."""
    from peftkit.push import plan_push, push, render_push

    planned = plan_push(run, repo, private=private)
    if not as_json:
        show(render_push(planned), None, as_json=False)
    if not yes and not ask(planned.question, otherwise="--yes"):
        say("nothing was uploaded")
        return
    with busy("uploading"):
        done = push(planned, existing=existing, message=message)
    text = f"uploaded {len(planned.files)} files to {done.url} (commit {done.commit[:8]})"
    show(text, done.to_json(), as_json)
