"""Scores are laid out with the digits, order and comparisons that a reader expects."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from peftkit.reporting.score_table import format_score, headline, render_table, tabulate

SCORES = {
    "split": "test",
    "num_rows": 1234,
    "headline": "rougeL",
    "base": {"rouge1": 0.1, "rougeL": 0.05, "bleu": 1.0, "perplexity": 80.0},
    "tuned": {"rouge1": 0.3, "rougeL": 0.2, "bleu": 4.0, "perplexity": 20.0},
    "baselines": {"first_sentence": {"rouge1": 0.2, "rougeL": 0.4, "bleu": 3.0}},
    "intervals": {"metric": "rougeL", "base": [0.04, 0.06], "tuned": [0.18, 0.22]},
    "notes": ["A note."],
}


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("rougeL", 0.12345, "0.123"),
        ("bleu", 12.345, "12.35"),
        ("perplexity", 12345.6, "12,346"),
        ("perplexity", 9.841, "9.84"),
        ("of_a_plugin", 31.4159, "31.42"),
        ("of_a_plugin", -0.5, "-0.500"),
    ],
)
def test_a_score_has_the_digits_of_its_scale(metric: str, value: float, text: str) -> None:
    assert format_score(metric, value) == text


def test_the_headline_comes_first_and_what_is_better_lower_comes_last() -> None:
    table = tabulate(SCORES)
    assert table is not None
    assert table.columns == ("Base", "Tuned", "First sentence")
    assert [row.label for row in table.rows] == ["ROUGE-L", "ROUGE-1", "BLEU", "Perplexity"]
    assert table.rows[0].is_headline
    assert table.rows[-1].note == "lower is better"


def test_bars_compare_within_a_row() -> None:
    table = tabulate(SCORES)
    assert table is not None
    assert [cell.percent for cell in table.rows[0].cells] == [12.5, 50.0, 100.0]
    assert [cell.interval for cell in table.rows[0].cells] == [
        "0.040 to 0.060",
        "0.180 to 0.220",
        "",
    ]
    # A baseline has no perplexity, and says so by an empty cell.
    assert [cell.text for cell in table.rows[-1].cells] == ["80.00", "20.00", ""]


@pytest.mark.parametrize(
    ("change", "times"),
    [
        ({}, "4.0 times higher"),
        ({"headline": "perplexity"}, "4.0 times lower"),
        ({"tuned": {"rougeL": 0.052}}, ""),
        ({"base": {"rougeL": 0.0}}, ""),
    ],
)
def test_the_headline_says_by_how_much(change: dict, times: str) -> None:
    found = headline({**SCORES, **change})
    assert found is not None
    assert found["times"] == times


def test_without_a_base_or_scores_there_is_no_comparison() -> None:
    assert headline({**SCORES, "base": {}}) is None
    assert tabulate({}) is None
    from_scratch = tabulate({**SCORES, "base": {}, "baselines": {}})
    assert from_scratch is not None
    assert from_scratch.columns == ("Tuned",)


def test_the_terminal_s_table_fits_80_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_table(SCORES))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert lines[0] == "1,234 rows of the split test"
    assert lines[2].split() == ["ROUGE-L", "0.050", "0.200", "0.400"]
    assert lines[-1] == "A note."
    assert next(line for line in lines if "Perplexity" in line).split()[-1] == "-"
    console.print(render_table({}))
    assert console.export_text().strip() == "no scores"
