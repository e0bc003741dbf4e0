"""Train on running text; nothing is asked and nothing generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.plugins import Text
from peftkit.sources.columns import read_text


@dataclass(frozen=True)
class PlainTextConfig:
    """Say which column holds the text."""

    text: str = "text"
    """Column of the text."""


class PlainText:
    """Take one column as text, every token trained."""

    Config: ClassVar[type | str] = PlainTextConfig
    headline: ClassVar[str] = ""
    makes: ClassVar[tuple[type, ...]] = (Text,)

    def __init__(self, config: PlainTextConfig) -> None:
        self.config = config

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        return (self.config.text,)

    def example(self, row: Mapping[str, Any]) -> Text:
        """Make one example of one row.

        Raises:
            DataError: the text is null, empty or no text.
        """
        return Text(read_text(row, self.config.text))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score nothing: perplexity says how well the text is known."""
        del predictions, references
        return {}

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Give none."""
        del rows
        return {}
