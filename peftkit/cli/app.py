"""The typer application, what every command shares, and how errors leave."""

from __future__ import annotations

import errno
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from peftkit.cli import completion
from peftkit.errors import PeftkitError, RecipeError, ResourceError, UsageError

WORKFLOW = (
    *("init", "check", "explain", "data", "plan", "fit", "run", "launch", "evaluate", "generate"),
    *("report", "runs", "merge", "export", "push", "bench", "recipes", "plugins", "doctor"),
)
"""The verbs as a person meets them; others follow."""


class Verbs(TyperGroup):
    """List the verbs by workflow, not by the module that registers them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names in order."""
        rank = {name: place for place, name in enumerate(WORKFLOW)}
        return sorted(super().list_commands(ctx), key=lambda name: rank.get(name, len(rank)))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write every verb with the whole first sentence of its help, folded and not cut off."""
        verbs = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, verb.get_short_help_str(limit=400)) for name, verb in verbs if verb]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    name="peftkit",
    cls=Verbs,
    # Plain help: laying it out with rich would take as long as everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage or recipe, 3 data, 4 artefact, 5 resources, 6 diverged, "
    "7 network, 75 stopped and resumable, 130 interrupted, 1 a bug in peftkit.",
)

RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help="A recipe's YAML file.", autocompletion=completion.complete_recipe
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="e.g. method.sft.learning_rate=1e-4",
        autocompletion=completion.complete_override,
    ),
]
RunPath = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run directory, e.g. runs/NAME.",
        autocompletion=completion.complete_run,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where the base lies now: a folder, Hub id, ID@REVISION, embedded:NAME.",
    ),
]
AllowOtherBase = Annotated[
    bool,
    typer.Option("--allow-other-base", help="Go on although the base has other weights now."),
]

EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ddp|fsdp2|zero2|zero3",
        help="How processes share the model; ddp, or fsdp2 where the recipe says fsdp.",
    ),
]

# typer has a copy of click of its own in some versions; this is the class in use either way.
CommandLineError: type[Exception] = typer.BadParameter.__bases__[0]
_ENVIRONMENT = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE}
)
"""What the system refuses because of its own state, not because of what was asked."""


def _version(wanted: bool) -> None:
    if wanted:
        from peftkit import __version__

        say(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    traceback: Annotated[  # noqa: ARG001 - main finds it wherever it stands, and puts it first
        bool, typer.Option("--traceback", help="Show Python's traceback for any error.")
    ] = False,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Load peftkit's own plugins only.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - the callback acts on it
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Fine-tune language models: says what will happen, shows what is trained, proves it."""
    if context.invoked_subcommand is None:
        say(context.get_help())
    if no_plugins:
        from peftkit.plugins import only_builtins

        context.with_resource(only_builtins())


def global_options(context: typer.Context) -> tuple[str, ...]:
    """Return the options before the verb that another process of the same command needs."""
    given = context.find_root().params
    return tuple(
        f"--{name.replace('_', '-')}" for name in ("traceback", "no_plugins") if given[name]
    )


def say(text: str = "") -> None:
    """Print a line; go quiet when the reader has gone (`| head`)."""
    with suppress(BrokenPipeError):
        typer.echo(text)


def show(renderable: Any, content: Any, as_json: bool) -> None:
    """Print for a person, or the same content as JSON."""
    if as_json:
        print_json(content)
        return
    from peftkit.system.screen import SteadyConsole

    SteadyConsole(highlight=False).print(renderable)


def print_json(content: Any) -> None:
    """Print plain data as JSON; outside UTF-8, in JSON's own escapes."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    say(json.dumps(content, indent=2, ensure_ascii=not is_utf8))


def print_error(error: PeftkitError, *, as_json: bool) -> None:
    """Print a refusal on stderr, or as JSON on stdout."""
    if not as_json:
        typer.echo(f"peftkit: {error}", err=True)
        return
    content: dict[str, Any] = {
        "error": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, RecipeError):
        content["problems"] = [problem.to_json() for problem in error.problems]
    print_json(content)


def explain_usage(error: Exception) -> UsageError:
    """Turn what the parser says about a command line into our refusal."""
    context = getattr(error, "ctx", None)
    path = "peftkit" if context is None else context.command_path
    message: str = getattr(error, "format_message", error.__str__)()
    return UsageError(message.rstrip("."), hint=f"{path} --help")


def explain_failure(error: Exception) -> PeftkitError:
    """Tell what the machine refused from a bug of ours, for an error that nothing foresaw."""
    from peftkit.system.exhaustion import exhaustion_explained

    with suppress(Exception):  # of which `error` itself is one, when it is not explained
        try:
            with exhaustion_explained("running this command"):
                raise error
        except ResourceError as explained:
            return explained
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        return ResourceError(f"{error.filename or 'the system'}: {error.strerror}")
    return PeftkitError(
        f"{type(error).__name__}: {error}",
        hint="this is a bug in peftkit: `peftkit doctor --report` writes down what mends it,"
        " without your data; --traceback shows where it is",
    )
