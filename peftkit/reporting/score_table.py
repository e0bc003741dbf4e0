"""Lay scores out for people: metrics in rows, base, tuned and baselines in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.reporting.label_table import LabelTable, label_lines, lay_out_labels, render_labels

if TYPE_CHECKING:
    from rich.console import RenderableType

LABELS = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "perplexity": "Perplexity",
    "bits_per_byte": "Bits per byte",
    "exact_match": "Exact match",
    "token_f1": "Word F1",
    "ter": "TER",
    "accuracy": "Accuracy",
    "auc": "AUC",
    "margin": "Margin",
    "reward": "Reward",
    "f1": "F1",
    "has_ans_f1": "F1, answerable",
    "no_ans_f1": "F1, unanswerable",
    "macro_f1": "Macro F1",
    "matthews": "Matthews correlation",
    "mlm_accuracy": "Masked words",
    "mlm_loss": "Loss of masked words",
    "nsp_accuracy": "Next sentences",
    "nsp_loss": "Loss of next sentences",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "Mean squared error",
}
LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte", "ter", "mlm_loss", "nsp_loss", "mse"})
HUNDREDS = frozenset({"bleu", "chrf", "ter", "perplexity"})


@dataclass(frozen=True)
class Cell:
    """Show one score of one contestant."""

    text: str
    percent: float
    """Length of its bar relative to the largest of its row."""
    kind: str
    """`base`, `tuned` or `baseline`."""
    interval: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """Show one metric."""

    label: str
    note: str
    is_headline: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ScoreTable:
    """Show the table of scores."""

    split: str
    num_rows: int
    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    headline: str
    notes: tuple[str, ...]
    by_label: LabelTable | None = None


def format_score(metric: str, value: float) -> str:
    """Write a score with the digits that its scale deserves."""
    if metric in HUNDREDS:
        return f"{value:,.0f}" if value >= 10_000 else f"{value:,.2f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.2f}"


def tabulate(scores: Mapping[str, Any]) -> ScoreTable | None:
    """Lay out a `scores.json` for people; None when nothing has been scored."""
    base, tuned = scores.get("base") or {}, scores.get("tuned") or {}
    if not tuned:
        return None
    baselines = scores.get("baselines") or {}
    chosen = str(scores.get("headline", ""))
    contestants = [("Base", "base", base)] if base else []
    contestants += [("Tuned", "tuned", tuned)]
    contestants += [
        (name.replace("_", " ").capitalize(), "baseline", b) for name, b in baselines.items()
    ]
    names = sorted(tuned, key=lambda m: (m != chosen, m in LOWER_IS_BETTER))
    rows = tuple(_score_row(name, contestants, scores) for name in names)
    notes = [str(note) for note in scores.get("notes", [])]
    return ScoreTable(
        split=str(scores.get("split", "")),
        num_rows=int(scores.get("num_rows", 0)),
        columns=tuple(title for title, _, _ in contestants),
        rows=rows,
        headline=LABELS.get(chosen, chosen),
        notes=tuple(notes),
        by_label=lay_out_labels(scores),
    )


def render_table(scores: Mapping[str, Any]) -> RenderableType:
    """Lay out a `scores.json` for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    laid_out = tabulate(scores)
    if laid_out is None:
        return Text("no scores")
    title = f"{laid_out.num_rows:,} rows of the split {laid_out.split}"
    table = Table(box=None, title=title, title_justify="left", title_style="", pad_edge=False)
    table.add_column("")
    for column in laid_out.columns:
        style = "bold" if column == "Tuned" else ""
        table.add_column(column, justify="right", style=style, header_style="dim")
    for row in laid_out.rows:
        label = f"{row.label} ({row.note})" if row.note else row.label
        cells = [cell.text or "-" for cell in row.cells]
        table.add_row(label, *cells, style="bold" if row.is_headline else "")
    shown: list[RenderableType] = [table]
    lines = list(laid_out.notes)
    if laid_out.by_label is not None:
        shown += [Text(""), render_labels(laid_out.by_label), Text("")]
        lines = [*label_lines(laid_out.by_label), *lines]
    return Group(*shown, *(Text(line, style="dim") for line in lines))


def _score_row(
    metric: str,
    contestants: Sequence[tuple[str, str, Mapping[str, float]]],
    scores: Mapping[str, Any],
) -> ScoreRow:
    largest = max((s[metric] for _, _, s in contestants if s.get(metric)), default=0.0)
    intervals = scores.get("intervals") or {}
    cells = []
    for _, kind, values in contestants:
        value = values.get(metric)
        if value is None:
            cells.append(Cell("", 0, kind))
            continue
        bounds = intervals.get(kind) if metric == intervals.get("metric") else None
        interval = " to ".join(format_score(metric, b) for b in bounds) if bounds else ""
        percent = round(100 * value / largest, 1) if largest else 0.0
        cells.append(Cell(format_score(metric, value), percent, kind, interval))
    return ScoreRow(
        label=LABELS.get(metric, metric),
        note="lower is better" if metric in LOWER_IS_BETTER else "",
        is_headline=metric == scores.get("headline"),
        cells=tuple(cells),
    )


def headline(scores: Mapping[str, Any]) -> dict[str, str] | None:
    """Give the one comparison that the top of the page shows in large figures."""
    base, tuned = scores.get("base") or {}, scores.get("tuned") or {}
    metric = scores.get("headline") or ("perplexity" if "perplexity" in tuned else "")
    if tuned.get(metric) is None or base.get(metric) is None:
        return None
    before, after = base[metric], tuned[metric]
    times = ""
    if before > 0 and after > 0:
        ratio = before / after if metric in LOWER_IS_BETTER else after / before
        word = "lower" if metric in LOWER_IS_BETTER else "higher"
        times = f"{ratio:.1f} times {word}" if ratio >= 1.1 else ""
    return {
        "label": LABELS.get(metric, metric),
        "before": format_score(metric, before),
        "after": format_score(metric, after),
        "times": times,
    }
