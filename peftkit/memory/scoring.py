"""Let the scoring after training fit as well: what it takes, and how many prompts at once may."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from peftkit.memory.fake import PlanningError

if TYPE_CHECKING:
    from peftkit.memory.evaluation import EvaluationPeak
    from peftkit.memory.planner import Plan


def planned_evaluation(made: Plan, batch_size: int | None = None) -> EvaluationPeak | None:
    """Return what scoring takes; None where nothing is scored, or it cannot be planned.

    Args:
        batch_size: instead of the recipe's `evaluate.batch_size`.
    """
    with suppress(PlanningError):
        return made.evaluation if batch_size is None else made.evaluation_at(batch_size)
    return None


def batch_size_that_fits(made: Plan, batch_size: int, limit: int) -> int:
    """Return the `evaluate.batch_size` whose scoring is planned to fit; 0 where none does.

    Args:
        batch_size: the one that does not fit.
        limit: bytes.
    """
    fixed = sum(made.term_bytes(term) for term in ("base", "adapter", "runtime"))
    least = planned_evaluation(made, 1)
    if least is None or least.num_bytes > limit:
        return 0
    rows = batch_size
    while rows > 1:
        found = planned_evaluation(made, rows)
        if found is None or found.num_bytes <= limit:
            break
        # What grows with the prompts grows about as they do.
        share = (limit - fixed) / (found.num_bytes - fixed)
        rows = max(1, min(rows - 1, int(rows * share)))
    return rows
