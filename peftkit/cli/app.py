"""The typer application, what every command shares, and how errors leave."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from peftkit.errors import PeftkitError

app = typer.Typer(
    name="peftkit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage or recipe, 3 data, 4 artefact, 5 resources, 6 diverged, "
    "7 network, 75 stopped and resumable, 130 interrupted, 1 a bug in peftkit.",
)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe's YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="e.g. method.sft.learning_rate=1e-4"),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, e.g. runs/NAME.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _version(wanted: bool) -> None:
    if wanted:
        from peftkit import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[  # noqa: ARG001 - read by main, where no context is left
        bool, typer.Option("--traceback", help="Show Python's traceback for any error.")
    ] = False,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Load peftkit's own plugins only.")
    ] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tune language models: says what will happen, shows what is trained, proves it."""
    if no_plugins:
        from peftkit.plugins import only_builtins

        only_builtins()


def show(renderable: Any, content: Any, as_json: bool) -> None:
    """Print for a person, or the same content as JSON."""
    if as_json:
        print_json(content)
        return
    from rich.console import Console

    Console().print(renderable)


def print_json(content: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def print_error(error: PeftkitError) -> None:
    """Print a refusal on stderr, or as JSON where the command line asks for it."""
    if "--json" in sys.argv:
        print_json({"error": error.message, "hint": error.hint, "exit_code": error.exit_code})
    else:
        typer.echo(f"peftkit: {error}", err=True)
