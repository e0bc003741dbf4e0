"""Weights & Biases, online or offline as its own environment says."""

from __future__ import annotations

import os
import shlex
from typing import Any

from peftkit.reporting.trackers.base import Board
from peftkit.reporting.trackers.told import Told


class WandB(Board):
    """Open the run before transformers' callback does, which then writes into it."""

    _run: Any = None

    def open(self) -> str:
        """Open the run; one that is known by its id goes on."""
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", self.opening.project),
            name=self.opening.name,
            id=self.opening.key,
            resume="allow" if self.opening.key else None,
            config={"peftkit_run": str(self.opening.folder)},
            allow_val_change=True,
        )
        return str(self._run.id)

    def tell(self, told: Told) -> None:
        """Write numbers into the summary, samples as a table, the recipe into the config."""
        import wandb

        self._run.summary.update(told.numbers)
        self._run.config.update({"recipe": told.recipe}, allow_val_change=True)
        if told.samples:
            table = wandb.Table(columns=list(told.columns), data=[list(r) for r in told.samples])
            self._run.log({"samples": table, "train/global_step": told.step})

    def where(self) -> str:
        """Return the run's address, or the command that uploads it."""
        if self._run.url and not self._run.offline:
            return str(self._run.url)
        return f"wandb sync {shlex.quote(str(self._run.settings.sync_dir))}"

    def close(self, *, finished: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if finished else 1)
