"""What peftkit asks of a tracker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from peftkit.reporting.trackers.told import Told


@dataclass(frozen=True)
class Opening:
    """Say which run a tracker opens."""

    name: str
    """Of the run, unlike that of any other recipe, seed or data."""
    folder: Path
    """The run's own folder."""
    project: str = "huggingface"
    """transformers' `project`, which Trackio reads."""
    key: str | None = None
    """What an earlier call of the same run was given; None for the first."""
    step: int = 0
    """The step that training goes on from; what came after it was never kept."""


class Board(ABC):
    """One run in one tracker: opened before training, told once scores are there, closed.

    Between `open` and `close` transformers' own callback writes its curves into the same run.
    """

    def __init__(self, opening: Opening) -> None:
        """Take which run this is; nothing is opened or imported."""
        self.opening = opening

    @abstractmethod
    def open(self) -> str:
        """Open the run, anew or where an earlier call left it; return the key to find it again."""

    @abstractmethod
    def tell(self, told: Told) -> None:
        """Write scores, plan beside measured, samples and the recipe into the opened run."""

    @abstractmethod
    def where(self) -> str:
        """Return where the run is to be seen: an address, or the command that shows it."""

    @abstractmethod
    def close(self, *, finished: bool) -> None:
        """End the run, or leave it to be gone on with."""
