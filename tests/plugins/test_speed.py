"""How a way is said in one line."""

from __future__ import annotations

import pytest

from peftkit.plugins.speed import Way


@pytest.mark.parametrize(
    ("way", "line"),
    [
        (Way(), ""),
        (Way(by_rows=True), "rows without padding"),
        (
            Way(scores_trained=True, by_rows=True),
            "the loss of trained positions only and rows without padding",
        ),
        (
            Way(scores_trained=True, why_not=("padded rows: it has recurrent layers",)),
            "the loss of trained positions only; padded rows: it has recurrent layers",
        ),
    ],
)
def test_what_is_done_and_what_is_not_share_a_line(way: Way, line: str) -> None:
    assert way.describe() == line
