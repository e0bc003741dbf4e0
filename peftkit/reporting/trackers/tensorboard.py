"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.reporting.trackers.base import Board, Opening
from peftkit.reporting.trackers.told import Told, as_markdown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "TENSORBOARD_LOGGING_DIR"
"""What transformers' callback reads; without it events go where checkpoints are pruned."""


class TensorBoard(Board):
    """Keep curves, scores and samples as events in `RUN/tensorboard`."""

    def __init__(self, opening: Opening) -> None:
        """Take which run this is."""
        super().__init__(opening)
        self._stated = os.environ.get(FOLDER)

    @property
    def folder(self) -> Path:
        """Return where the events lie: what the user's environment says, or the run's folder."""
        own = self.opening.folder / "tensorboard"
        return Path(self._stated).expanduser() if self._stated else own

    def open(self) -> str:
        """Tell transformers' callback the folder, and take back steps that were never kept."""
        os.environ[FOLDER] = str(self.folder)
        if self.opening.key is not None:
            self._writer(purge_step=self.opening.step + 1).close()
        return str(self.folder)

    def tell(self, told: Told) -> None:
        """Write numbers at the last step, samples and recipe as text."""
        writer = self._writer()
        for name, value in told.numbers.items():
            writer.add_scalar(name, value, told.step)
        if told.samples:
            writer.add_text("samples", as_markdown(told.columns, told.samples), told.step)
        writer.add_text("recipe", f"```yaml\n{told.recipe}\n```", told.step)
        writer.close()

    def where(self) -> str:
        """Return the command that shows it."""
        return f"tensorboard --logdir {shlex.quote(str(self.folder))}"

    def close(self, *, finished: bool) -> None:  # noqa: ARG002 - event files have no end
        """Put the environment back."""
        if self._stated is None:
            os.environ.pop(FOLDER, None)

    def _writer(self, **options: Any) -> SummaryWriter:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            from tensorboardX import SummaryWriter  # type: ignore[no-redef]
        return SummaryWriter(log_dir=str(self.folder), **options)
