"""Propose the fastest set of changes that makes a recipe fit a device, show it, write it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import RecipeError, UsageError
from peftkit.planning.devices import Device
from peftkit.planning.levers import read_levers
from peftkit.planning.proposals import Change, Fit, Proposal, Setup, overrides_of
from peftkit.planning.search import NUM_SHOWN, Search
from peftkit.recipe.edit import edit_text
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import parse_value
from peftkit.rundir.paths import write_atomically
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from peftkit.recipe.schema import Recipe


def fit(
    recipe: Recipe,
    device: Device,
    *,
    free: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
    num_processes: int = 1,
) -> Fit:
    """Find the settings that fit a device, the fastest first; the global batch stays.

    Args:
        free: dotted keys that stand in the recipe and may be changed all the same.
        lengths: tokens of each training row, as for `plan`.
        num_processes: how many train together, each on such a device.

    Raises:
        UsageError: `free` names what fit never changes.
        ResourceError: nothing that is open fits; says by how much, and what would.
    """
    levers = read_levers(recipe, device.as_machine(), free=free)
    search = Search(recipe, device, levers, lengths, num_processes)
    now = search.as_it_is()
    setups = search.setups()
    if not setups:
        raise search.refusal()
    proposals = tuple(_propose(search, now, setup) for setup in setups)
    pinned = {key: recipe.lines.get(key) for key in search.levers.pinned()}
    return Fit(device, now, proposals, pinned, search.scored({}).num_bytes, num_processes)


def _propose(search: Search, now: Setup, setup: Setup) -> Proposal:
    """Say what a setup changes, and add fewer prompts at once where its scoring would not fit."""
    headroom, changes = search.device.total_bytes - setup.peak_bytes, search.changes(now, setup)
    scored = search.scored(setup.settings)
    if scored.batch_size is not None and scored.num_bytes and scored.fitting_bytes:
        settings = {"evaluate.batch_size": scored.batch_size}
        saved = scored.num_bytes - scored.fitting_bytes
        changes = (*changes, Change("scoring", settings, saved, 1.0))
        setup = dataclasses.replace(setup, settings={**setup.settings, **settings})
    return Proposal(setup, changes, headroom, scored.fitting_bytes)


def render_fit(found: Fit) -> RenderableType:
    """Lay out what a recipe needs now and the fastest proposals, each change with its price."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    total = found.device.total_bytes
    verdict = "fits" if found.now.peak_bytes <= total else "does not fit"
    lines: list[RenderableType] = [
        Text(
            f"as it is: {gibibytes(found.now.peak_bytes)}, {verdict} {found.device.name}"
            f" ({gibibytes(total)}); {_speed(found.now)}"
        )
    ]
    if found.scoring_bytes is not None and found.scoring_bytes > total:
        lines.append(Text(f"scoring afterwards: {gibibytes(found.scoring_bytes)}, does not fit"))
    for rank, proposal in enumerate(found.proposals[:NUM_SHOWN], 1):
        lines.append(Text(f"\n{rank}. {_summary(proposal)}"))
        if proposal.changes:
            table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
            for column, justify in (("", "left"), ("saves", "right"), ("time", "right")):
                table.add_column(column, justify=justify)  # type: ignore[arg-type]
            for change in proposal.changes:
                table.add_row(*_row(change))
            lines.append(table)
        if proposal.scoring_bytes is not None and proposal.scoring_bytes > total:
            lines.append(Text(_unscored(proposal.scoring_bytes), style="yellow"))
    if found.pinned:
        lines.append(Text("\n" + _pinned(found)))
    speed = found.now.speed
    several = found.num_processes > 1
    left_out = f", without what {found.num_processes} processes exchange" if several else ""
    lines.append(
        Text(f"\ntimes are predicted, from the published rates of {speed.device}{left_out}")
    )
    return Group(*lines)


def write_proposal(recipe: Recipe, proposal: Proposal, file: Path) -> None:
    """Write the recipe with a proposal's settings, comments kept, once the gate has passed it.

    Overrides of the command line go into the file too: what is written is what was planned.

    Raises:
        UsageError: the file exists already and is not the recipe's own.
        RecipeError: the changed recipe cannot stand there, e.g. its relative paths lead nowhere.
    """
    if file.exists() and not file.samefile(recipe.file):
        raise UsageError(f"{file} exists already", hint="name a new file")
    earlier = (override.partition("=") for override in recipe.overrides)
    changes: dict[str, Any] = {key: parse_value(text, "override") for key, _, text in earlier}
    text = edit_text(recipe.text, str(recipe.file), {**changes, **proposal.setup.settings})
    before = file.read_text(encoding="utf-8") if file.exists() else None
    write_atomically(file, text)
    try:
        load_recipe(file)
    except RecipeError:
        if before is None:
            file.unlink()
        else:
            write_atomically(file, before)
        raise


def _unscored(num_bytes: int) -> str:
    return (
        f"   scoring afterwards still takes {gibibytes(num_bytes)}, which does not fit: release"
        " evaluate.batch_size, or leave out `evaluate` and score it on a larger device"
    )


def _summary(proposal: Proposal) -> str:
    setup = proposal.setup
    said = "as it is" if not proposal.changes else f"{len(proposal.changes)} changed"
    return (
        f"{said}: {gibibytes(setup.peak_bytes)}, {gibibytes(proposal.headroom_bytes)} to spare;"
        f" {_speed(setup)}; {setup.micro_batch} x {setup.accumulation} rows a step"
    )


def _row(change: Change) -> tuple[str, str, str]:
    saved = abs(change.saved_bytes)
    sign = "-" if change.saved_bytes < 0 else ""
    percent = 100 * (change.time_factor - 1)
    return (
        "   " + "  ".join(overrides_of(change.settings)),
        f"{sign}{gibibytes(saved)}",
        f"{percent:+.0f} %",
    )


def _speed(setup: Setup) -> str:
    return f"{setup.speed.tokens_per_second:,.0f} tokens/s predicted"


def _pinned(found: Fit) -> str:
    places = [
        f"{key} (line {line})" if line is not None else f"{key} (override)"
        for key, line in found.pinned.items()
    ]
    return f"left alone, since the recipe says so: {', '.join(places)}; --free KEY releases one"
