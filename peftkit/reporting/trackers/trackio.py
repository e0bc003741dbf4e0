"""Trackio, whose runs are known by project and name."""

from __future__ import annotations

import shlex
from typing import Any

from peftkit.reporting.trackers.base import Board
from peftkit.reporting.trackers.told import Told


class Trackio(Board):
    """Leave opening and ending to transformers' callback, and go on with its run by name."""

    def open(self) -> str:
        """Return the name, by which transformers' callback opens the run or goes on with it."""
        return self.opening.name

    def tell(self, told: Told) -> None:
        """Write numbers and samples into the run of that name."""
        import trackio
        from datasets import Dataset

        trackio.init(project=self.opening.project, name=self.opening.name, resume="allow")
        try:
            said: dict[str, Any] = {**told.numbers, "train/global_step": told.step}
            if told.samples:
                cells = zip(*told.samples, strict=True)
                columns = dict(zip(told.columns, map(list, cells), strict=True))
                frame = Dataset.from_dict(columns).to_pandas()
                said["samples"] = trackio.Table(dataframe=frame)
            trackio.log(said)
        finally:
            trackio.finish()

    def where(self) -> str:
        """Return the command that shows it."""
        return f"trackio show --project {shlex.quote(self.opening.project)}"

    def close(self, *, finished: bool) -> None:
        """Do nothing: `tell` and transformers' callback end what they open."""
