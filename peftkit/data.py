"""Show what the data becomes: the audit, and rows token by token with the trained ones marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from peftkit.preprocessing.audit import SplitAudit, describe_dropped
from peftkit.preprocessing.masked_rows import DataView, MaskedRow, make_view
from peftkit.preprocessing.pipeline import inspect_rows, wanted_splits

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table
    from rich.text import Text

    from peftkit.recipe.schema import Recipe


def show_data(recipe: Recipe, *, split: str | None = None, num_rows: int = 3) -> DataView:
    """Read, encode and audit a recipe's rows as a run would, without reading any weight.

    Args:
        split: only this one; those that a run uses when absent.
        num_rows: rows of each split to show token by token.

    Raises:
        DataError: rows are missing or malformed. A broken threshold is shown, not raised.
    """
    from peftkit.system.quiet import quiet_stack

    quiet_stack()
    from peftkit.models.load import load_config, max_positions
    from peftkit.models.load_errors import check_trains
    from peftkit.recipe.build import build
    from peftkit.system.machine import describe_machine
    from peftkit.training.prepare import tokenizer_of

    built = build(recipe, describe_machine())
    config = load_config(recipe.model)
    check_trains(config, built.method.kind)
    built.method.check_config(config)
    tokenizer = tokenizer_of(recipe, built)
    splits = [split] if split is not None else wanted_splits(recipe)
    positions = max_positions(config)
    prepared = inspect_rows(built, tokenizer, max_positions=positions, splits=splits)
    return make_view(prepared, built.method, tokenizer, num_rows=num_rows)


@dataclass(frozen=True)
class MaskedText:
    """Render one row: trained tokens in colour, or in brackets where there is none."""

    row: MaskedRow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Mark tokens as this terminal can."""
        has_color = console.color_system is not None and not console.no_color
        is_ascii = not options.encoding.startswith("utf")
        yield mark_tokens(self.row, has_color=has_color, is_ascii=is_ascii)


def mark_tokens(row: MaskedRow, *, has_color: bool, is_ascii: bool = False) -> Text:
    """Return a row as text with its whitespace visible.

    Without colour, tokens are parted by `┊` and a run of trained ones stands in `[[ ]]`.
    """
    from rich.text import Text

    text = Text(no_wrap=False, overflow="fold")
    pairs = zip(row.tokens, row.trained, strict=True)
    number = 0
    for is_trained, run in groupby(pairs, key=lambda pair: pair[1]):
        tokens = [visible(token, is_ascii=is_ascii) for token, _ in run]
        if not has_color:
            joined = ("|" if is_ascii else "┊").join(tokens)
            text.append(f"[[{joined}]]" if is_trained else joined)
            continue
        for token in tokens:
            shade = number % 2
            style = ("black on green", "black on bright_green") if is_trained else ("dim", "none")
            text.append(token, style[shade])
            number += 1
    return text


def visible(token: str, *, is_ascii: bool = False) -> str:
    """Return a token with its whitespace shown and its control characters escaped."""
    space, newline, tab = (" ", "\\n", "\\t") if is_ascii else ("·", "⏎", "→")
    shown = {" ": space, "\n": f"{newline}\n", "\t": tab}
    parts = []
    for char in token:
        if char in shown:
            parts.append(shown[char])
        elif not char.isprintable() or (is_ascii and not char.isascii()):
            parts.append(char.encode("unicode_escape", "backslashreplace").decode("ascii"))
        else:
            parts.append(char)
    return "".join(parts)


def render_data(view: DataView) -> Group:
    """Lay the view out for a terminal, from 40 columns on."""
    from rich.console import Group
    from rich.text import Text

    shown: list[Any] = [audit_table(view.audit)]
    shown += [Text(note, style="yellow") for note in view.notes]
    for name, audit in view.audit.items():
        shown += [Text(note, style="yellow") for note in notes(name, audit)]
    if any(any(row.trained) for rows in view.rows.values() for row in rows):
        shown.append(Text("\nTrained tokens stand in colour, or in [[ ]].", style="dim"))
    for name, rows in view.rows.items():
        for number, row in enumerate(rows):
            what = f"label {row.label}" if row.label else f"{sum(row.trained)} trained"
            head = f"\n{name} row {number}: {len(row.tokens)} tokens, {what}"
            shown += [Text(head, style="bold"), MaskedText(row)]
    if view.breaches:
        shown.append(Text("\nA run would refuse this data:", style="bold red"))
        shown += [Text(f"  {breach}", style="red") for breach in view.breaches]
    return Group(*shown)


def notes(name: str, audit: SplitAudit) -> Iterator[str]:
    """Give what deserves a look in one split, threshold or not."""
    if audit.left_out:
        yield f"{name}: the source leaves out {describe_dropped(audit.left_out)}"
    if audit.num_unread:
        yield f"{name}: {audit.num_unread} answers are another text once their tokens are read back"
    if audit.dropped:
        yield f"{name}: dropped {describe_dropped(audit.dropped)}"
    if audit.skipped:
        yield f"{name}: left out, as data.rows says: {describe_dropped(audit.skipped)}"
    if audit.num_cut:
        yield f"{name}: {audit.num_cut} of {audit.num_used} rows have a shorter document"
    yield from _seen_elsewhere(name, audit)
    if audit.missing_labels:
        yield f"{name}: no row has the label {' or '.join(audit.missing_labels)}"


def _seen_elsewhere(name: str, audit: SplitAudit) -> Iterator[str]:
    """Say what of a split stands in others too."""
    if audit.num_leaked:
        yield (
            f"{name}: {audit.num_leaked} of {audit.num_used} prompts also stand in train,"
            " so its scores will flatter"
        )
    for other, count in audit.shared.items():
        yield f"{name}: {count} of {audit.num_used} prompts also stand in {other}"
    if audit.weights:
        shown = (f"{label} {weight:.3g}" for label, weight in audit.weights.items())
        yield f"{name}: rows count by their label: {', '.join(shown)}"
    num_cut_off = audit.num_windows - audit.num_ended
    if num_cut_off:
        yield f"{name}: {num_cut_off} rows are cut before their answer's end"


def audit_table(audit: dict[str, SplitAudit]) -> Table:
    """Return the audit with a column for each split."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for name in audit:
        table.add_column(name, justify="right", no_wrap=True)
    for label, cells in _table_rows(list(audit.values())):
        table.add_row(label, *cells)
    return table


def _table_rows(audits: Sequence[SplitAudit]) -> Iterator[tuple[str, list[str]]]:
    counts = {
        "rows": [audit.num_rows for audit in audits],
        "used": [audit.num_used for audit in audits],
        "windows": [audit.num_windows for audit in audits],
        "dropped": [sum(audit.dropped.values()) for audit in audits],
        "left out": [sum(audit.skipped.values()) for audit in audits],
        "masked": [audit.num_fully_masked for audit in audits],
        "truncated": [audit.num_truncated for audit in audits],
        "shortened": [audit.num_cut for audit in audits],
        "duplicates": [audit.num_duplicates for audit in audits],
        "leaked": [audit.num_leaked for audit in audits],
        "tokens": [audit.num_tokens for audit in audits],
    }
    if counts["windows"] == counts["used"]:
        del counts["windows"]
    for label, numbers in counts.items():
        if any(numbers) or label not in ("left out", "shortened"):
            yield label, [f"{number:,}" for number in numbers]
    yield from _source_rows(audits)
    yield from _trained_rows(audits)
    yield from _length_rows(audits)


def _trained_rows(audits: Sequence[SplitAudit]) -> Iterator[tuple[str, list[str]]]:
    if any(audit.labels for audit in audits):
        for label in dict.fromkeys(label for audit in audits for label in audit.labels):
            yield f"label {label}", [f"{audit.labels.get(label, 0):,}" for audit in audits]
    elif any(audit.numbers for audit in audits):
        for name in ("least", "mean", "most"):
            yield f"{name} number", [f"{audit.numbers.get(name, 0):.4g}" for audit in audits]
    else:
        yield "trained", [f"{audit.share_trained:.1%}" for audit in audits]


def _length_rows(audits: Sequence[SplitAudit]) -> Iterator[tuple[str, list[str]]]:
    has_targets = any(audit.target_percentiles for audit in audits)
    sides = [("source " if has_targets else "", [a.length_percentiles for a in audits],
              [a.max_length for a in audits])]  # fmt: skip
    if has_targets:
        targets = [a.target_percentiles for a in audits]
        sides.append(("target ", targets, [a.max_target_length for a in audits]))
    for side, found, limits in sides:
        for percentile in ("p50", "p90", "p99", "max"):
            label = "longest" if percentile == "max" else f"length {percentile}"
            yield f"{side}{label}", [f"{one.get(percentile, 0):,}" for one in found]
        yield f"{side}cut at", [f"{limit:,}" if limit else "-" for limit in limits]


def _source_rows(audits: Sequence[SplitAudit]) -> Iterator[tuple[str, list[str]]]:
    for source in dict.fromkeys(source for audit in audits for source in audit.sources):
        yield f"from {source}", [_share_of(audit, source) for audit in audits]


def _share_of(audit: SplitAudit, source: str) -> str:
    """Say how many rows an epoch sees of one of several sources, and how that came about."""
    if source not in audit.sources:
        return "-"
    one = audit.sources[source]
    total = sum(share.num_seen for share in audit.sources.values())
    times = "" if one.weight == 1 else f"{one.num_used:,} x {one.weight:g} = "
    return f"{times}{one.num_seen:,} ({one.num_seen / max(total, 1):.0%})"
