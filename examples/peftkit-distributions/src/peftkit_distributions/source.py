"""Read the metadata of installed Python distributions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins import Source

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Config:
    """Choose which distributions are read."""

    min_words: int = 20
    """Shortest description, in words, that says more than the summary."""
    max_chars: int = 500
    """Where a longer description is cut, at a space; a README's first lines say the most."""
    test_share: float = 0.2
    """Share of the distributions, by a hash of their names, that the split `test` holds."""
    exclude: list[str] = field(default_factory=list)
    """Distributions to leave out."""


class Distributions(Source):
    """Give the long description and the one-line summary of installed distributions."""

    Config = Config

    def __init__(self, config: Config) -> None:
        if not 0 < config.test_share < 1:
            raise DataError(
                f"distributions: test_share is {config.test_share}", hint="write a share, e.g. 0.2"
            )
        super().__init__(config)

    def splits(self) -> Sequence[str]:
        """Name the two splits."""
        return SPLITS

    def load(self, split: str) -> Dataset:
        """Read one split: columns name, version, description, summary, sorted by name.

        Raises:
            DataError: the split is unknown, or no installed distribution falls into it.
        """
        from datasets import Dataset

        if split not in SPLITS:
            raise DataError(f"distributions: no split {split!r}", hint=f"use one of {SPLITS}")
        rows = [row for row in self._rows() if self._split_of(row["name"]) == split]
        if not rows:
            raise DataError(
                f"distributions: no row in the split {split!r}",
                hint="install more packages, or lower min_words",
            )
        return Dataset.from_list(rows)

    def _split_of(self, name: str) -> str:
        digest = hashlib.sha256(name.encode()).digest()
        share = int.from_bytes(digest[:8], "big") / (1 << 64)
        return "test" if share < self.config.test_share else "train"

    def _cut(self, text: str) -> str:
        if len(text) <= self.config.max_chars:
            return text
        return text[: self.config.max_chars].rpartition(" ")[0] or text[: self.config.max_chars]

    def _rows(self) -> list[dict[str, str]]:
        excluded = {_normalize(name) for name in self.config.exclude}
        rows = {}
        for distribution in metadata.distributions():
            # A half-removed distribution has no metadata at all.
            fields = distribution.metadata
            if fields is None or not fields["Name"]:
                continue
            name = _normalize(fields["Name"])
            summary = (fields["Summary"] or "").strip()
            description = (fields["Description"] or fields.get_payload() or "").strip()
            is_told = summary and summary != "UNKNOWN"
            if name in excluded or not is_told or len(description.split()) < self.config.min_words:
                continue
            rows[name] = {
                "name": name,
                "version": distribution.version,
                "description": self._cut(description),
                "summary": summary,
            }
        return [rows[name] for name in sorted(rows)]


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
