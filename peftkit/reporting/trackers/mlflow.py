"""MLflow, at the place that its own environment names."""

from __future__ import annotations

import os
import shlex

from peftkit.reporting.trackers.base import Board
from peftkit.reporting.trackers.told import Told


class MLflow(Board):
    """Open the run before transformers' callback does, which then writes into it and leaves it."""

    _id = ""

    def open(self) -> str:
        """Open the run; one that is known by its id goes on."""
        import mlflow

        if experiment := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            mlflow.set_experiment(experiment)
        if self.opening.key is not None:
            run = mlflow.start_run(run_id=self.opening.key)
        else:
            run = mlflow.start_run(run_name=self.opening.name)
        self._id = str(run.info.run_id)
        mlflow.set_tag("peftkit_run", str(self.opening.folder))
        return self._id

    def tell(self, told: Told) -> None:
        """Write numbers as metrics, samples as a table, and keep the run's files."""
        import mlflow

        mlflow.log_metrics(dict(told.numbers), step=told.step)
        if told.samples:
            cells = zip(*told.samples, strict=True)
            table = {name: list(column) for name, column in zip(told.columns, cells, strict=True)}
            mlflow.log_table(table, "samples.json")
        for file in told.files:
            mlflow.log_artifact(str(file))

    def where(self) -> str:
        """Return the command that shows it."""
        import mlflow

        place = shlex.quote(str(mlflow.get_tracking_uri()))
        return f"mlflow ui --backend-store-uri {place} (run {self._id})"

    def close(self, *, finished: bool) -> None:
        """End the run."""
        import mlflow

        mlflow.end_run("FINISHED" if finished else "KILLED")
