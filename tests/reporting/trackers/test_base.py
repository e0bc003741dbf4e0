"""A tracker is one class that says all that is asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftkit.reporting.trackers.base import Board, Opening


def test_a_board_must_say_everything_that_is_asked() -> None:
    class Half(Board):
        def open(self) -> str:
            return "key"

    with pytest.raises(TypeError, match="abstract"):
        Half(Opening("run", Path()))
