"""Render the file by which a job system runs a recipe: the verb `peftkit launch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import RecipeError, ResourceError, UsageError
from peftkit.launching.engines import engine_of, find_problems
from peftkit.launching.launched import quantizer_of
from peftkit.launching.words import run_options
from peftkit.plugins import Rendered, Scheduler, Work, find
from peftkit.recipe.build import construct
from peftkit.recipe.overrides import apply_overrides
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.strict import Gate
from peftkit.recipe.yaml_file import join

if TYPE_CHECKING:
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Machines:
    """Say on what a job runs."""

    num_machines: int = 1
    processes_per_machine: int = 1
    engine: str | None = None
    """By its name; None for the one that the recipe means."""
    grace_seconds: int = 120
    """What a run gets between the signal and its end."""


def launch(  # noqa: PLR0913 - what the command line takes
    file: Path,
    recipe: Recipe,
    on: str,
    machines: Machines,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    options: Sequence[str] = (),
) -> Rendered:
    """Render a job system's file, having checked all that can be known here.

    Args:
        file: the recipe, as the job finds it in its folder.
        on: a scheduler's name.
        overrides: of the recipe, `KEY=VALUE`.
        out: the run directory; `runs/NAME` otherwise.
        options: the scheduler's own, `KEY=VALUE`.

    Raises:
        UsageError: no such scheduler or engine, or not for this recipe, or not on so many machines.
        RecipeError: an option of the scheduler is unknown, wrong or missing.
    """
    scheduler_class = find("schedulers", on)
    scheduler: Scheduler = scheduler_class(_read_options(on, scheduler_class.Config, options))
    _check_machines(scheduler, on, machines)
    work = Work(
        recipe.name,
        ("peftkit", "run", str(file), *overrides, *run_options(out)),
        _launcher(recipe, machines),
        machines.num_machines,
        machines.processes_per_machine,
        uses_gpus=not recipe.method.options.get("use_cpu"),
        grace_seconds=machines.grace_seconds,
    )
    return _with_note(scheduler.render(work), file)


def _launcher(recipe: Recipe, machines: Machines) -> tuple[str, ...]:
    """Return the words that start several processes; none for one."""
    engine = engine_of(machines.engine, recipe)
    if machines.num_machines * machines.processes_per_machine == 1:
        if machines.engine is not None or engine.is_fsdp:
            raise UsageError(
                f"--engine {engine.name} is for several processes, and this job has one",
                hint="--processes 8 starts as many on each machine",
            )
        return ()
    problems = find_problems(engine, recipe, quantizer_of(recipe, engine))
    if problems:
        raise UsageError("\n  ".join(problems), hint="another --engine")
    named = () if machines.engine is None else ("--engine", engine.name)
    return ("--launch", "accelerate", *named)


def _check_machines(scheduler: Scheduler, on: str, machines: Machines) -> None:
    most = scheduler.most_machines
    if most is not None and machines.num_machines > most:
        raise UsageError(
            f"--on {on} has at most {most} machine{'s' * (most > 1)} a job",
            hint="--on slurm, skypilot or kubernetes",
        )


def _read_options(on: str, config: Any, options: Sequence[str]) -> Any:
    """Read `KEY=VALUE`s through the gate, and construct the scheduler's config."""
    where = f"peftkit launch --on {on}"
    read = apply_overrides(where, {}, options)
    gate = Gate(where, {}, {join(on, key) for key in read.keys})
    gate.check_options(on, read.data, signature_of(config))
    if gate.problems:
        raise RecipeError(where, gate.problems)
    return construct(config, read.data)


def _with_note(rendered: Rendered, file: Path) -> Rendered:
    """Say of a recipe's place what a job in another folder would trip over."""
    if not file.is_absolute():
        return rendered
    note = f"the job reads {file}: that path must lead there on each machine"
    return dataclasses.replace(rendered, notes=(*rendered.notes, note))


def write_file(rendered: Rendered, out: Path) -> None:
    """Write a rendered file.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(rendered.text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write {out}: {error.strerror}") from error
