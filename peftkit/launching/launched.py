"""Run a recipe in several processes: check what can be known, start them, answer as they ended."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import (
    ArtefactError,
    DataError,
    DivergedError,
    NetworkError,
    PeftkitError,
    ResourceError,
    StoppedError,
    UsageError,
    first_line,
)
from peftkit.launching.arguments import (
    LauncherArguments,
    chosen_arguments,
    find_machine_problems,
    read_arguments,
)
from peftkit.launching.engines import (
    Engine,
    engine_of,
    find_missing,
    find_problems,
    overrides_for,
)
from peftkit.launching.processes import Failure, run_processes
from peftkit.rundir import status as run_state
from peftkit.rundir.checkpoints import list_checkpoints
from peftkit.rundir.paths import RunDir, is_locked

if TYPE_CHECKING:
    from peftkit.plugins import Quantizer
    from peftkit.recipe.schema import Recipe

_FULL_MEMORY = (signal.SIGKILL, signal.SIGBUS)
"""What the system sends where memory or shared memory has run out."""
_KINDS = {
    kind.exit_code: kind
    for kind in (
        UsageError,
        DataError,
        ArtefactError,
        ResourceError,
        DivergedError,
        NetworkError,
        StoppedError,
    )
}


@dataclass(frozen=True)
class LaunchedRun:
    """Say what is to be run, and how its processes are started."""

    recipe: Path
    """What the command line names: a recipe's file, or a run's folder."""
    overrides: tuple[str, ...]
    engine: str | None
    """By its name; None for the one that the recipe means."""
    arguments: tuple[str, ...]
    """Of `accelerate launch`."""
    options: tuple[str, ...] = ()
    """Of `peftkit run`, for each process."""
    global_options: tuple[str, ...] = ()
    """Of `peftkit`, before its verb."""


@dataclass(frozen=True)
class Checked:
    """Hold a run that nothing known speaks against."""

    engine: Engine | None
    """None where the user's own config file takes its place."""
    arguments: LauncherArguments
    overrides: tuple[str, ...]

    def command(self, asked: LaunchedRun) -> list[str]:
        """Return the arguments of `accelerate launch` that start the run."""
        file = [] if self.engine is None else ["--config_file", str(self.engine.file)]
        return [
            *(*file, *self.arguments.given, *chosen_arguments(self.arguments)),
            *("--module", "peftkit", *asked.global_options, "run", str(asked.recipe)),
            *(*asked.overrides, *self.overrides, *asked.options),
        ]


def check_launch(asked: LaunchedRun, recipe: Recipe) -> Checked:
    """Find everything that speaks against a run in several processes, before one is started.

    Raises:
        UsageError: lists all of it.
        RecipeError: upstream refuses the recipe's values.
    """
    engine: Engine | None = engine_of(asked.engine, recipe)
    arguments = read_arguments(asked.arguments)
    problems, overrides = list(arguments.problems), list[str]()
    if arguments.config_file is not None:
        engine = None
        if asked.engine is not None:
            problems.append("--engine and --config_file exclude each other: drop one of them")
    elif engine is not None:
        overrides = overrides_for(engine, recipe)
        problems += find_missing(engine)
        problems += find_problems(engine, recipe, quantizer_of(recipe, engine))
    uses_cpu = bool(recipe.method.options.get("use_cpu"))
    problems += find_machine_problems(arguments, uses_cpu=uses_cpu)
    if problems:
        several = [f"this launch has {len(problems)} problems", *problems]
        raise UsageError(
            problems[0] if len(problems) == 1 else "\n  ".join(several),
            hint="accelerate launch --help lists what may follow --",
        )
    return Checked(engine, arguments, tuple(overrides))


def quantizer_of(recipe: Recipe, engine: Engine) -> Quantizer | None:
    """Construct a recipe's quantizer, where an engine has to know it."""
    if recipe.model.quantize is None or not engine.cuts_weights:
        return None
    from peftkit.recipe.build import build
    from peftkit.system.machine import describe_machine

    return build(recipe, describe_machine()).quantizer


def launch(asked: LaunchedRun, recipe: Recipe, run_dir: RunDir) -> int:
    """Run a recipe in several processes, and return the exit code of the run.

    What the run's main process says is on the screen already; only what it could not know is said
    here.

    Raises:
        UsageError: accelerate cannot start it as asked, or not this recipe.
        PeftkitError: another process than the main one failed, or one was killed.
    """
    checked = check_launch(asked, recipe)
    ending = run_processes(checked.command(asked))
    cause = ending.cause
    if cause is None:
        _check_started(ending.error)
        return 0
    if ending.is_ours(cause):
        return cause.exit_code if cause.exit_code > 0 else 128 - cause.exit_code
    if cause.exit_code < 0:
        error = killed(cause, run_dir)
        record(error, run_dir)
        raise error
    if not _is_said(cause, ending.failures):
        raise _told(cause)
    return cause.exit_code


def _check_started(error: BaseException | None) -> None:
    """Say why accelerate started nothing, if so."""
    if error is None:
        return
    if isinstance(error, SystemExit):
        raise SystemExit(error.code or 0)
    raise UsageError(
        f"accelerate launch: {first_line(error)}", hint="accelerate launch --help"
    ) from error


def _is_said(cause: Failure, failures: Sequence[Failure]) -> bool:
    """Tell whether the run's main process has said on the screen why all failed."""
    main = next((one for one in failures if one.rank == 0), None)
    is_said = main is not None and main.exit_code == cause.exit_code
    return is_said or not cause.message


def _told(cause: Failure) -> PeftkitError:
    """Return what a process left for its launcher as the error that it was."""
    message, _, hint = cause.message.partition("\n  try: ")
    kind = _KINDS.get(cause.exit_code, PeftkitError)
    return kind(f"rank {cause.rank}: {message}", hint=hint or None)


def killed(cause: Failure, run_dir: RunDir) -> PeftkitError:
    """Say that a process was killed, and what the same command does now."""
    done = list_checkpoints(run_dir.checkpoints) if run_dir.checkpoints.is_dir() else []
    after = f"resumes at step {done[-1].step}" if done else "starts over"
    message = (
        f"rank {cause.rank} (process {cause.pid}) was killed by {cause.signal_name}, and the run"
        " with it"
    )
    if -cause.exit_code in _FULL_MEMORY:
        return ResourceError(
            f"{message}: by hand, or because this machine's memory was full (dmesg says so)",
            hint=f"the same command {after}",
        )
    return PeftkitError(message, hint=f"the same command {after}")


def record(error: PeftkitError, run_dir: RunDir) -> None:
    """Write into status.json what a killed process could not, where nothing runs there now."""
    status = run_state.read_status(run_dir)
    if not status or status.get("state") == "finished" or is_locked(run_dir):
        return
    step, total = run_state.progress_of(run_dir, status)
    ended = run_state.RunStatus(run_dir, status.get("identity"), step, total)
    ended.end("failed", exit_code=error.exit_code, message=error.message)
