"""Show a plan: a table for people, a picture of memory over the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.memory.plan import TERMS, Plan, Verdict, plan
from peftkit.progress import gibibytes

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from peftkit.recipe.schema import Recipe

_COLOURS = {
    "base": "#4c72b0", "adapter": "#55a868", "gradients": "#c44e52", "optimizer": "#8172b3",
    "activations": "#dd8452", "loss": "#da8bc3", "temporaries": "#ccb974", "runtime": "#8c8c8c",
}  # fmt: skip
_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlannedRecipe:
    """Hold a recipe's plan, the devices it was held against, and where its length comes from."""

    plan: Plan
    verdicts: tuple[Verdict, ...]
    length_from: str
    """e.g. `the longest of 300 rows`."""


def plan_recipe(
    recipe: Recipe, *, gpus: str | None = None, here: bool = False, length: int | None = None
) -> PlannedRecipe:
    """Plan a recipe for GPUs, or for this machine, and hold the plan against each.

    Args:
        gpus: sizes in GiB and names, separated by commas; the usual sizes when absent.
        here: plan for this machine, and against what is free on it.
        length: tokens a row; that of the data's longest row, else `max_length`, when absent.

    Raises:
        UsageError: `gpus` and `here` at once, or a device that is not known.
    """
    from peftkit.machine import describe_machine
    from peftkit.memory import devices
    from peftkit.memory.lengths import row_lengths

    if gpus is not None and here:
        raise UsageError("--gpus and --here exclude each other", hint="drop one of them")
    wanted = devices.defaults() if gpus is None else devices.parse(gpus)
    machine = describe_machine() if here else wanted[0].as_machine()
    lengths, origin = ([length], "--length") if length else row_lengths(recipe, machine)
    if lengths is None:
        origin = f"max_length: {origin}"
    made = plan(recipe, lengths=lengths, machine=machine)
    sizes = (
        [(machine.name, machine.free_bytes)]
        if here
        else [(device.name, device.total_bytes) for device in wanted]
    )
    verdicts = tuple(made.verdict(name, num_bytes) for name, num_bytes in sizes)
    return PlannedRecipe(made, verdicts, origin)


def render_plan(planned: PlannedRecipe) -> Group:
    """Lay a plan out: the peak, its terms, and the devices it fits."""
    from rich.console import Group
    from rich.text import Text

    made, verdicts, length_from = planned.plan, planned.verdicts, planned.length_from
    times = f" x {made.accumulation}" if made.accumulation > 1 else ""
    origin = f" ({length_from})" if length_from else ""
    head = Text(
        f"peak {gibibytes(made.peak_bytes)} in {made.peak_phase}, on {made.device}:"
        f" {made.micro_batch}{times} rows of {made.length:,} tokens{origin}"
    )
    parts: list[Any] = [head, Text(), _term_table(made)]
    if verdicts:
        parts += [Text(), _device_table(made, verdicts)]
    parts += [Text(f"unknown: {note}", style="yellow") for note in made.unknown]
    return Group(*parts)


def plot_plan(plan: Plan, file: Path) -> None:
    """Draw memory over the step by term, the phases marked.

    Raises:
        UsageError: the file's ending names no picture.
    """
    if file.suffix.lower() not in _FORMATS:
        raise UsageError(
            f"--plot {file}: the ending {file.suffix!r} names no picture",
            hint=f"one of {', '.join(_FORMATS)}",
        )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    steps = range(len(plan.timeline))
    order = sorted(TERMS, key=lambda term: term != "runtime")
    terms = [term for term in order if any(m.num_bytes.get(term) for m in plan.timeline)]
    layers = [[m.num_bytes.get(term, 0) / 2**30 for m in plan.timeline] for term in terms]
    axes.stackplot(steps, layers, labels=terms, colors=[_COLOURS[term] for term in terms])
    previous = ""
    for at, moment in enumerate(plan.timeline):
        if moment.phase != previous:
            axes.axvline(at, color="black", linewidth=0.5, alpha=0.5)
            axes.annotate(
                moment.phase, (at, 1.0), xycoords=("data", "axes fraction"),
                xytext=(2, -9), textcoords="offset points", fontsize=7,
            )  # fmt: skip
        previous = moment.phase
    axes.set_title(f"peak {gibibytes(plan.peak_bytes)} in {plan.peak_phase}", fontsize=10)
    axes.set_ylabel("GiB")
    axes.set_xlabel("allocations and frees, in order")
    axes.margins(x=0)
    axes.legend(loc="lower right", fontsize=7)
    figure.savefig(file)


def _term_table(plan: Plan) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("term")
    table.add_column("GiB", justify="right")
    table.add_column("from")
    table.add_column("bytes", overflow="fold")
    for term in plan.terms:
        formula = term.formula if term.exact else f"about {term.formula}"
        table.add_row(term.name, f"{term.num_bytes / 2**30:.3f}", term.phase, formula)
    return table


def _device_table(plan: Plan, verdicts: Sequence[Verdict]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    table.add_column("fits")
    table.add_column("headroom", justify="right")
    table.add_column(f"rows of {plan.length:,}", justify="right")
    table.add_column(f"tokens x {plan.micro_batch} rows", justify="right")
    for verdict in verdicts:
        table.add_row(
            verdict.name,
            "yes" if verdict.fits else "no",
            gibibytes(verdict.headroom_bytes),
            f"{verdict.max_micro_batch:,}",
            f"{verdict.max_length:,}",
        )
    return table
