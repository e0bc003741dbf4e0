"""Plain text is one example a row, and is not scored by generation."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.plugins import Text
from peftkit.tasks.text import PlainText, PlainTextConfig


def test_a_row_is_its_text():
    task = PlainText(PlainTextConfig("body"))
    assert task.columns == ("body",)
    assert task.example({"body": " as it is \n"}) == Text(" as it is \n")
    with pytest.raises(DataError, match=r"^body is only whitespace$"):
        task.example({"body": "  "})
    assert task.score([], []) == {}
    assert task.baselines([]) == {}
    assert task.headline == ""
