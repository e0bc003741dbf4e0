"""Show what fits, and write the recipe that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import RecipeError, UsageError
from peftkit.memory.proposal import overrides_of
from peftkit.memory.search import NUM_SHOWN
from peftkit.recipe.edit import edit_text
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import parse_value
from peftkit.run_dir import write_atomically
from peftkit.units import gibibytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from peftkit.memory.proposal import Change, Fit, Proposal, Setup
    from peftkit.recipe.schema import Recipe


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
