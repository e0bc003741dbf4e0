"""Show what the data becomes: the audit, and rows token by token with the trained ones marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from peftkit.audit import Breach, SplitAudit, describe_dropped
from peftkit.data import Prepared, inspect_rows, wanted_splits
from peftkit.masks import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

    from peftkit.recipe.schema import Recipe

MAX_TOKENS = 2048
"""Tokens of a row that a run directory keeps for its report; packed rows can be far longer."""


@dataclass(frozen=True)
class MaskedRow:
    """Hold one row as the trainer gets it."""

    tokens: tuple[str, ...]
    """Each token's text."""
    trained: tuple[bool, ...]
    """Whether the loss counts it. What an encoder reads stands before the target."""
    label: str = ""
    """What is to be predicted of all tokens, where a row has a label."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        row: dict[str, Any] = {"tokens": list(self.tokens), "trained": list(self.trained)}
        return {**row, "label": self.label} if self.label else row


@dataclass(frozen=True)
class DataView:
    """Hold what `peftkit data` shows."""

    name: str
    """The recipe's name."""
    audit: dict[str, SplitAudit]
    breaches: tuple[Breach, ...]
    """Thresholds that a run would refuse; the exit code is 3 if there are any."""
    rows: dict[str, list[MaskedRow]]
    """Split -> its first rows."""
    fingerprint: str
    source_revision: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the view as JSON data, in the form of a run's data.json."""
        return {
            "fingerprint": self.fingerprint,
            "source_revision": self.source_revision,
            "splits": {name: asdict(audit) for name, audit in self.audit.items()},
            "breaches": [asdict(breach) for breach in self.breaches],
            "mask_samples": {
                name: [row.to_json() for row in rows] for name, rows in self.rows.items()
            },
        }


def show_data(recipe: Recipe, *, split: str | None = None, num_rows: int = 3) -> DataView:
    """Read, encode and audit a recipe's rows as a run would, without reading any weight.

    Args:
        split: only this one; those that a run uses when absent.
        num_rows: rows of each split to show token by token.

    Raises:
        DataError: rows are missing or malformed. A broken threshold is shown, not raised.
    """
    from peftkit.quiet import quiet_stack

    quiet_stack()
    from peftkit.load_errors import check_trains
    from peftkit.machine import describe_machine
    from peftkit.model import load_config, load_tokenizer, max_positions
    from peftkit.recipe.build import build

    built = build(recipe, describe_machine())
    config = load_config(recipe.model)
    check_trains(config, built.method.auto_class)
    if recipe.model.config is None:
        tokenizer = load_tokenizer(recipe.model, recipe.file.parent)
    else:
        from peftkit.job import make_tokenizer

        tokenizer = make_tokenizer(recipe, built)
    splits = [split] if split is not None else wanted_splits(recipe)
    positions = max_positions(config)
    prepared = inspect_rows(built, tokenizer, max_positions=positions, splits=splits)
    return make_view(recipe.name, prepared, tokenizer, num_rows=num_rows)


def make_view(
    name: str, prepared: Prepared, tokenizer: PreTrainedTokenizerBase, *, num_rows: int
) -> DataView:
    """Take the first rows of every split out of prepared data."""
    return DataView(
        name=name,
        audit=prepared.audit,
        breaches=prepared.breaches,
        rows={
            split: mask_rows(rows, tokenizer, prepared, num_rows=num_rows)
            for split, rows in prepared.encoded.items()
        },
        fingerprint=prepared.fingerprint,
        source_revision=prepared.source_revision,
    )


def data_json(
    prepared: Prepared, tokenizer: PreTrainedTokenizerBase, *, num_rows: int = 3
) -> dict[str, Any]:
    """Return the content of a run's data.json: fingerprint, audit and the masks of a few rows."""
    return make_view("", prepared, tokenizer, num_rows=num_rows).to_json()


def mask_rows(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, prepared: Prepared, *, num_rows: int
) -> list[MaskedRow]:
    """Decode the first encoded rows token by token."""
    shown = rows.select(range(min(num_rows, len(rows))))
    return [_mask_row(row, tokenizer, prepared) for row in shown]


def _mask_row(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, prepared: Prepared
) -> MaskedRow:
    labels = row["labels"]
    tokens = tuple(decode_tokens(row["input_ids"][:MAX_TOKENS], tokenizer))
    if isinstance(labels, int):
        return MaskedRow(tokens, (False,) * len(tokens), prepared.labels.names[labels])
    if not prepared.has_targets:
        return MaskedRow(tokens, tuple(label != IGNORED for label in labels[:MAX_TOKENS]))
    target = tuple(decode_tokens(labels[:MAX_TOKENS], tokenizer))
    return MaskedRow(tokens + target, (False,) * len(tokens) + (True,) * len(target))


def decode_tokens(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Give each token's own text; a character that spans tokens stands in its last one.

    The texts join to the decoded row, so no byte is shown twice or lost.
    """
    pending: list[int] = []
    for at, token_id in enumerate(ids):
        pending.append(token_id)
        text = tokenizer.decode(pending, skip_special_tokens=False)
        is_partial = text.endswith("\ufffd") and len(pending) < 4 and at + 1 < len(ids)
        yield "" if is_partial else text
        if not is_partial:
            pending = []


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
    if audit.dropped:
        yield f"{name}: dropped {describe_dropped(audit.dropped)}"
    if audit.num_leaked:
        yield (
            f"{name}: {audit.num_leaked} of {audit.num_used} prompts also stand in train,"
            " so its scores will flatter"
        )
    num_cut_off = audit.num_used - audit.num_ended
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
        "dropped": [sum(audit.dropped.values()) for audit in audits],
        "masked": [audit.num_fully_masked for audit in audits],
        "truncated": [audit.num_truncated for audit in audits],
        "duplicates": [audit.num_duplicates for audit in audits],
        "leaked": [audit.num_leaked for audit in audits],
        "tokens": [audit.num_tokens for audit in audits],
    }
    for label, numbers in counts.items():
        yield label, [f"{number:,}" for number in numbers]
    if any(audit.labels for audit in audits):
        for label in dict.fromkeys(label for audit in audits for label in audit.labels):
            yield f"label {label}", [f"{audit.labels.get(label, 0):,}" for audit in audits]
    else:
        yield "trained", [f"{audit.share_trained:.1%}" for audit in audits]
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
