"""Read the sample data that ships with peftkit."""

from __future__ import annotations

import json
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
            return Dataset.from_list([json.loads(line) for line in lines])
