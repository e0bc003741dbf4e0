"""Rows that are windows of one text have no one label; the rest is proved with the classifier."""

from __future__ import annotations

import pytest

from peftkit.errors import UsageError
from peftkit.scoring.head_logits import one_each


def test_one_row_of_each_text() -> None:
    assert one_each([[{"input_ids": [1]}], [{"input_ids": [2]}]]) == [
        {"input_ids": [1]}, {"input_ids": [2]},
    ]  # fmt: skip
    with pytest.raises(UsageError, match="several rows of a text"):
        one_each([[{"input_ids": [1]}, {"input_ids": [2]}]])
