"""Open the trackers that a recipe reports to, under a name that is this run's alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftkit.training.prepare import Job, Session


def open_trackers(job: Job, session: Session, *, step: int = 0) -> None:
    """Open what the recipe's `report_to` names; a tracker that is open already stays so.

    The name ends in the run's identity: Trackio takes runs of one name for one, and another seed
    is another run.

    Raises:
        NetworkError: a tracker refuses.
    """
    arguments = job.built.method.config
    arguments.run_name = f"{job.recipe.name}-{job.identity[:6]}"
    session.tracking.open(arguments.run_name, project=arguments.project, step=step)
