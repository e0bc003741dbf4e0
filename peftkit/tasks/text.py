"""Train on running text; nothing is asked and nothing generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.plugins import Example, Task, Text
from peftkit.sources.columns import read_text


@dataclass(frozen=True)
class PlainTextConfig:
    """Say which column holds the text."""

    text: str = "text"
    """Column of the text."""


class PlainText(Task):
    """Take one column as text, every token trained."""

    Config: ClassVar[type | str] = PlainTextConfig
    makes: ClassVar[tuple[type[Example], ...]] = (Text,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        return (self.config.text,)

    @property
    def document(self) -> str:
        """Name the column that may be shortened."""
        config: PlainTextConfig = self.config
        return config.text

    def example(self, row: Mapping[str, Any]) -> Text:
        """Make one example of one row.

        Raises:
            DataError: the text is null, empty or no text.
        """
        return Text(read_text(row, self.config.text))
