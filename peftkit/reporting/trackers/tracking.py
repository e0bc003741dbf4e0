"""The trackers of one run: opened, told and closed together, and found again by a later call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from peftkit.errors import NetworkError, PeftkitError, first_line
from peftkit.reporting.trackers.base import Board, Opening
from peftkit.reporting.trackers.mlflow import MLflow
from peftkit.reporting.trackers.tensorboard import TensorBoard
from peftkit.reporting.trackers.told import told_of
from peftkit.reporting.trackers.trackio import Trackio
from peftkit.reporting.trackers.wandb import WandB
from peftkit.rundir.paths import RunDir, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftkit.system.screen import Screen

BOARDS: Mapping[str, type[Board]] = {
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}
"""The trackers that are told more than the curves, by transformers' names of them."""


class Tracking:
    """Hold a run's trackers while one call of it lasts."""

    def __init__(self, run_dir: RunDir, names: Sequence[str], screen: Screen) -> None:
        """Take which trackers the recipe reports to; those without a board draw curves alone."""
        self._run_dir, self._screen = run_dir, screen
        self._names = [name for name in names if name in BOARDS]
        self._open: dict[str, Board] = {}

    def open(self, name: str, *, project: str, step: int = 0) -> None:
        """Open every tracker's run, or go on with that of an earlier call.

        Args:
            name: what the run is called there.
            step: where training goes on.

        Raises:
            NetworkError: a tracker refuses; says which, and what it said.
        """
        record = self._run_dir.read_if_there(self._run_dir.trackers)
        for tracker in self._names:
            if tracker in self._open:
                continue
            key = (record.get(tracker) or {}).get("key")
            opening = Opening(name, self._run_dir.path.absolute(), project, key, step)
            board = BOARDS[tracker](opening)
            with _refusal_explained(tracker, self._run_dir, key):
                found = board.open()
                self._open[tracker] = board
                where = board.where()
            record = {**record, tracker: {"key": found, "where": where}}
            self._screen.say(f"  tracker  {tracker}: {where}")
        if self._open:
            write_json(self._run_dir.trackers, record)

    def tell(self) -> None:
        """Tell every open tracker what the run came to; one that fails cannot fail the run."""
        told = told_of(self._run_dir)
        for tracker, board in self._open.items():
            try:
                board.tell(told)
            except Exception as error:
                self._screen.say(f"  tracker  {tracker} was not told: {_said(error)}")

    def close(self, *, finished: bool) -> None:
        """Close them all, the last one first."""
        for tracker, board in reversed(self._open.items()):
            try:
                board.close(finished=finished)
            except Exception as error:
                self._screen.say(f"  tracker  {tracker} was not closed: {_said(error)}")
        self._open.clear()


@contextmanager
def tracking(run_dir: RunDir, names: Sequence[str], screen: Screen) -> Iterator[Tracking]:
    """Close a run's trackers whichever way it ends."""
    boards, finished = Tracking(run_dir, names, screen), False
    try:
        yield boards
        finished = True
    finally:
        boards.close(finished=finished)


@contextmanager
def _refusal_explained(tracker: str, run_dir: RunDir, key: Any) -> Iterator[None]:
    try:
        yield
    except (PeftkitError, MemoryError):  # a signal among them
        raise
    except Exception as error:
        again = f", or delete {run_dir.trackers} for a new run there" if key else ""
        raise NetworkError(
            f"{tracker} cannot be opened: {_said(error)}",
            hint=f"log in to it, or use its offline mode{again}; or write report_to: none",
        ) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
