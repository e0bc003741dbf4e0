"""Read the sample data that ships with peftkit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from peftkit import embedded
from peftkit.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class EmbeddedConfig:
    """Choose the sample data."""

    name: str
    """A folder of `peftkit/embedded`, e.g. `docstring-summaries`."""
    mismatched: bool = False
    """Give every document twice, with its own summary and with another one's, and every row a
    column `match`: yes or no. Neither side alone tells which it is."""


class EmbeddedSource:
    """Give a sample of documents as a dataset, its splits fixed by package."""

    Config: ClassVar[type | str] = EmbeddedConfig

    def __init__(self, config: EmbeddedConfig) -> None:
        known = embedded.dataset_names()
        if config.name not in known:
            raise DataError(
                f"embedded: no sample data is called {config.name!r}", hint=f"use one of {known}"
            )
        self._folder = embedded.dataset_path(config.name)
        self._is_mismatched = config.mismatched

    def splits(self) -> list[str]:
        """List the splits, training first."""
        found = {file.stem for file in self._folder.glob("*.jsonl")}
        return [split for split in ("train", "validation", "test") if split in found]

    def load(self, split: str) -> Dataset:
        """Load one split with its columns as they are in the file.

        Raises: DataError for an unknown split.
        """
        from datasets import Dataset

        if split not in self.splits():
            raise DataError(f"embedded: no split {split!r}", hint=f"use one of {self.splits()}")
        with (self._folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return Dataset.from_list(mismatch(rows) if self._is_mismatched else rows)


def mismatch(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Give every document its own summary, and that of the next one in the order of a hash.

    Returns: for each document in its order a row whose `match` is `yes`, and one with `no`; every
        summary comes once in each.
    """
    order = sorted(range(len(rows)), key=lambda at: _hash(rows[at]["document"]))
    others = dict(zip(order, [*order[1:], order[0]], strict=True))
    made = []
    for at, row in enumerate(rows):
        made.append({**row, "match": "yes"})
        made.append({**row, "match": "no", "summary": rows[others[at]]["summary"]})
    return made


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
