"""Labels are laid out with their matrix, or with the worst confusions where they are many."""

from __future__ import annotations

import io

from rich.console import Console

from peftkit.reporting.label_table import label_lines, lay_out_labels, render_labels
from peftkit.reporting.score_table import render_table
from peftkit.scoring.by_label import score_by_label


def scores(found: list[str], wanted: list[str], labels: list[str]) -> dict:
    by_label = score_by_label(found, wanted, labels).to_json()
    return {"tuned": {"accuracy": 0.5}, "headline": "accuracy", "by_label": {"tuned": by_label}}


def shown(what: object) -> list[list[str]]:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(what)
    return [line.split() for line in console.export_text().splitlines()]


def test_a_few_labels_stand_in_a_matrix() -> None:
    content = scores(["a", "b", "b", "b"], ["a", "a", "b", "b"], ["a", "b", "c"])
    table = lay_out_labels(content)
    assert table is not None
    lines = shown(render_labels(table))
    assert ["a", "2", "1.000", "0.500", "0.667", "1", "1", "0"] in lines
    assert ["b", "2", "0.667", "1.000", "0.800", "0", "2", "0"] in lines
    assert ["c", "0", "-", "-", "0.000", "0", "0", "0"] in lines
    assert label_lines(table) == []
    assert ["a", "2", "1.000", "0.500", "0.667", "1", "1", "0"] in shown(render_table(content))


def test_of_many_labels_those_with_most_rows_and_the_worst_confusions_are_shown() -> None:
    labels = [f"l{at:02}" for at in range(40)]
    wanted = [label for at, label in enumerate(labels) for _ in range(at + 1)]
    found = ["l00" if label == "l39" else label for label in wanted]
    table = lay_out_labels(scores(found, wanted, labels))
    assert table is not None
    assert [row.label for row in table.rows] == list(reversed(labels))[:30]
    assert table.columns == ()
    assert label_lines(table) == [
        "10 labels with fewer rows are left out.", "40 rows of l39 are taken for l00",
    ]  # fmt: skip


def test_other_runs_have_no_labels() -> None:
    assert lay_out_labels({"tuned": {"rougeL": 0.5}}) is None
