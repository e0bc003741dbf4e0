"""Lay out for people how well each label is named, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_LABELS = 30
"""Rows of the table; the labels with the most rows."""
MATRIX_LABELS = 10
"""Columns of the matrix; of more labels, the most frequent confusions are listed instead."""
SHOWN_CONFUSIONS = 10


@dataclass(frozen=True)
class LabelRow:
    """Show one label."""

    label: str
    num_rows: str
    precision: str
    recall: str
    f1: str
    predicted: tuple[str, ...]
    """How many of its rows are given each label; empty where there are too many labels."""


@dataclass(frozen=True)
class LabelTable:
    """Show every label of the tuned model."""

    rows: tuple[LabelRow, ...]
    columns: tuple[str, ...]
    """The labels that are predicted, where a matrix is shown."""
    confusions: tuple[str, ...]
    """What is most often taken for what, where none is."""
    num_left_out: int


def lay_out_labels(scores: Mapping[str, Any]) -> LabelTable | None:
    """Lay out the labels of a `scores.json`; None where it has none."""
    found = (scores.get("by_label") or {}).get("tuned")
    if not found:
        return None
    labels, confusion = found["labels"], found["confusion"]
    is_small = len(labels) <= MATRIX_LABELS
    order: Sequence[int] = range(len(labels))
    if len(labels) > SHOWN_LABELS:
        order = sorted(order, key=lambda at: (-found["num_rows"][at], at))[:SHOWN_LABELS]
    rows = tuple(
        LabelRow(
            label=labels[at],
            num_rows=f"{found['num_rows'][at]:,}",
            precision=_share(found["precision"][at]),
            recall=_share(found["recall"][at]),
            f1=_share(found["f1"][at]),
            predicted=tuple(f"{n:,}" for n in confusion[at]) if is_small else (),
        )
        for at in order
    )
    return LabelTable(
        rows=rows,
        columns=tuple(labels) if is_small else (),
        confusions=() if is_small else _confusions(labels, confusion),
        num_left_out=len(labels) - len(rows),
    )


def render_labels(table: LabelTable) -> Table:
    """Lay the labels out for the terminal."""
    from rich.table import Table as RichTable

    title = "Rows of a label, by the label that they are given" if table.columns else ""
    made = RichTable(box=None, pad_edge=False, title=title, title_justify="left", title_style="dim")
    made.add_column("")
    for name in ("rows", "precision", "recall", "F1", *(f"as {one}" for one in table.columns)):
        made.add_column(name, justify="right", header_style="dim")
    for row in table.rows:
        made.add_row(row.label, row.num_rows, row.precision, row.recall, row.f1, *row.predicted)
    return made


def label_lines(table: LabelTable) -> list[str]:
    """Return what a table of many labels leaves out."""
    lines = [f"{table.num_left_out} labels with fewer rows are left out."]
    return [*lines[: bool(table.num_left_out)], *table.confusions]


def _confusions(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> tuple[str, ...]:
    found = [
        (count, labels[right], labels[given])
        for right, row in enumerate(confusion)
        for given, count in enumerate(row)
        if count and right != given
    ]
    found.sort(key=lambda one: (-one[0], one[1:]))
    return tuple(
        f"{count:,} rows of {right} are taken for {given}"
        for count, right, given in found[:SHOWN_CONFUSIONS]
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
