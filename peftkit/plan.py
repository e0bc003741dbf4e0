"""Show a plan: a table for people, a picture of memory over the step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.memory.planner import Plan, Verdict, plan
from peftkit.memory.scoring import planned_evaluation
from peftkit.memory.sharing import DDP
from peftkit.memory.terms import COLLECTIVES, TERMS
from peftkit.planning.admission import available_bytes
from peftkit.planning.communication import Exchange, communicated_bytes
from peftkit.system.units import GIB, duration, gibibytes

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from peftkit.planning.devices import Device
    from peftkit.planning.forecast import Forecast
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe

_COLOURS = {
    "base": "#4c72b0", "adapter": "#55a868", "gradients": "#c44e52", "optimizer": "#8172b3",
    "activations": "#dd8452", "loss": "#da8bc3", "temporaries": "#ccb974",
    COLLECTIVES: "#64b5cd", "runtime": "#8c8c8c",
}  # fmt: skip
_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class PlannedRecipe:
    """Hold a recipe's plan, the devices it was held against, and where its length comes from."""

    plan: Plan
    verdicts: tuple[Verdict, ...]
    forecasts: tuple[Forecast | None, ...]
    """For each verdict; None where the plan does not fit or no rates are known."""
    length_from: str
    """e.g. `the longest of 300 rows`."""
    rates_from: str
    """Where the rates come from that times follow from."""
    price_per_hour: float | None = None
    """Of each device, in any currency."""

    @property
    def communicated_bytes(self) -> int | None:
        """Return what each of several replicas sends in a step; None of shards, or of one."""
        sharing = self.plan.sharing
        if sharing.strategy != DDP:
            return None
        exchange = Exchange("ddp", self.plan.gradient_bytes)
        return communicated_bytes(exchange, sharing.num_processes)

    def to_json(self) -> dict[str, Any]:
        """Return what `plan --json` prints: the plan, the devices, and what is predicted."""
        known = [forecast for forecast in self.forecasts if forecast is not None]
        speeds = [forecast.to_json(self.price_per_hour) for forecast in known]
        evaluation = planned_evaluation(self.plan)
        return {
            **self.plan.to_json(self.verdicts),
            "evaluation": None if evaluation is None else dataclasses.asdict(evaluation),
            "speeds": speeds,
            "communicated_bytes": self.communicated_bytes,
            "hints": list(self.plan.hints),
        }


def plan_recipe(  # noqa: PLR0913 - what the command line takes
    recipe: Recipe,
    *,
    gpus: str | None = None,
    here: bool = False,
    length: int | None = None,
    price_per_hour: float | None = None,
    num_processes: int = 1,
) -> PlannedRecipe:
    """Plan a recipe for GPUs, or for this machine, and hold the plan against each.

    Args:
        gpus: sizes in GiB and names, separated by commas; the usual sizes when absent.
        here: plan for this machine, and against what is free on it.
        length: tokens a row; that of the data's longest row, else `max_length`, when absent.
        price_per_hour: of a device, in any currency: predicts what the run costs.
        num_processes: how many train together, each on a device like those.

    Raises:
        UsageError: options that exclude each other, a device that is not known, or no price.
    """
    from peftkit.memory.lengths import length_key, row_lengths
    from peftkit.planning import devices
    from peftkit.planning.forecast import forecast
    from peftkit.system.machine import describe_machine

    _check_options(gpus, here, price_per_hour, num_processes)
    wanted = devices.defaults() if gpus is None else devices.parse(gpus)
    machine = describe_machine() if here else wanted[0].as_machine()
    lengths, origin = ([length], "--length") if length else row_lengths(recipe, machine)
    num_rows = None if length or lengths is None else len(lengths)
    if lengths is None:
        origin = f"{length_key(recipe).rpartition('.')[2]}: {origin}"
    made = plan(recipe, lengths=lengths, machine=machine, num_processes=num_processes)
    places = [(_here(machine), machine)] if here else [(d, d.as_machine()) for d in wanted]
    verdicts = tuple(
        made.verdict(place.name, available_bytes(made, place) if here else place.total_bytes)
        for _, place in places
    )
    forecasts = tuple(
        # How long processes wait for each other depends on the links between them.
        forecast(made, recipe, device, place, num_rows=num_rows)
        if verdict.fits and num_processes == 1
        else None
        for (device, place), verdict in zip(places, verdicts, strict=True)
    )
    is_measured = here and machine.device == "cpu"
    rates_from = "rates measured here just now" if is_measured else "published rates"
    return PlannedRecipe(made, verdicts, forecasts, origin, rates_from, price_per_hour)


def _check_options(
    gpus: str | None, here: bool, price_per_hour: float | None, num_processes: int
) -> None:
    """Refuse options that exclude each other, and what is no price."""
    if gpus is not None and here:
        raise UsageError("--gpus and --here exclude each other", hint="drop one of them")
    if here and num_processes > 1:
        raise UsageError(
            "--here plans for one process on this machine", hint="name the devices: --gpus 24"
        )
    if price_per_hour is not None and not (math.isfinite(price_per_hour) and price_per_hour >= 0):
        raise UsageError(
            f"--price-per-hour {price_per_hour}: that is no price", hint="e.g. --price-per-hour 2.5"
        )


def _here(machine: Machine) -> Device:
    """Describe the device at hand: a CPU by what it was just seen to achieve."""
    from peftkit.planning import devices
    from peftkit.planning.host_rates import measure_host

    if machine.device == "cpu":
        return measure_host(machine.name, machine.total_bytes)
    return devices.present(machine.name, machine.total_bytes)


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
    if made.needed_bytes != made.peak_bytes:
        needed = gibibytes(made.needed_bytes)
        head.append(f"\n{needed} must be free: what CUDA's caching allocator takes to serve it")
    if made.sharing.num_processes > 1:
        head.append(f"\npredicted for each of {made.sharing.describe()}")
        if planned.communicated_bytes is not None:
            sent = gibibytes(planned.communicated_bytes)
            head.append(f"; each sends {sent} a step, and receives as much")
    parts: list[Any] = [head, Text(), _term_table(made), Text(), _device_table(made, verdicts)]
    if made.host_bytes:
        parts.append(Text(f"\nin pinned host memory beside it: {gibibytes(made.host_bytes)}"))
    parts += _evaluation(planned)
    parts += [Text(), *_times(planned)]
    parts += [Text(f"unknown: {note}", style="yellow") for note in made.unknown]
    parts += [Text(f"hint: {hint}") for hint in planned.plan.hints]
    return Group(*parts)


def _evaluation(planned: PlannedRecipe) -> Iterator[Text]:
    """Say what scoring takes, and which devices that fit the training do not fit it."""
    from rich.text import Text

    found = planned_evaluation(planned.plan)
    if found is None:
        return
    yield Text(f"\nscoring afterwards: {gibibytes(found.num_bytes)} for {found.describe()}")
    short = [v.name for v in planned.verdicts if v.fits and v.total_bytes < found.num_bytes]
    if short:
        yield Text(f"which does not fit {', '.join(short)}", style="yellow")


def _times(planned: PlannedRecipe) -> Iterator[Table | Text]:
    """Give what is predicted of time and cost, or say what it takes to predict it."""
    from rich.text import Text

    known = [forecast for forecast in planned.forecasts if forecast is not None]
    if planned.plan.sharing.num_processes > 1:
        yield Text("time is not predicted for several processes: their links are not known")
        return
    if not known:
        yield Text("time is predicted for named cards that this fits, e.g. --gpus 4090,h100")
        return
    yield _time_table(planned, known[0])
    yield Text(f"predicted for an average batch, from {planned.rates_from}")
    if known[0].num_steps is None:
        yield Text("the number of rows is not known, so neither is the time of the whole run")


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
    layers = [[m.num_bytes.get(term, 0) / GIB for m in plan.timeline] for term in terms]
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
        table.add_row(term.name, f"{term.num_bytes / GIB:.3f}", term.phase, formula)
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
            f"{'-' if verdict.headroom_bytes < 0 else ''}{gibibytes(abs(verdict.headroom_bytes))}",
            f"{verdict.max_micro_batch:,}",
            f"{verdict.max_length:,}",
        )
    return table


def _time_table(planned: PlannedRecipe, known: Forecast) -> Table:
    from rich.table import Table

    columns = ["s/step", "tokens/s"]
    price = planned.price_per_hour
    if known.num_steps is not None:
        columns.append(f"{known.num_steps:,} steps")
        columns += [] if price is None else [f"at {price:g}/hour"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("predicted")
    for column in columns:
        table.add_column(column, justify="right")
    for verdict, forecast in zip(planned.verdicts, planned.forecasts, strict=True):
        cells = ["-"] * len(columns)
        if forecast is not None:
            cells = [
                f"{forecast.speed.seconds_per_step:.3g}",
                f"{forecast.speed.tokens_per_second:,.0f}",
                *([] if forecast.run_seconds is None else [duration(forecast.run_seconds)]),
                *([] if (cost := forecast.cost(price)) is None else [_money(cost)]),
            ]
        table.add_row(verdict.name, *cells)
    return table


def _money(amount: float) -> str:
    return "< 0.01" if 0 < amount < 0.01 else f"{amount:,.2f}"
