"""Score a language model by which answers it finds likelier, and, where asked, by its own."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from peftkit.plugins.evaluation import Contestant, Evaluator, Scoring
from peftkit.plugins.rows import IGNORED
from peftkit.scoring.generative import GenerativeEvaluator
from peftkit.scoring.perplexity import row_nats

if TYPE_CHECKING:
    from peftkit.plugins import Row


@dataclass(frozen=True)
class Compared(Contestant):
    """Hold how much likelier each better answer is than the worse one, in nats."""

    margins: tuple[float, ...] = ()


class PreferenceEvaluator(Evaluator):
    """Ask each model which of two answers is likelier, and by how much.

    Where the recipe states how to generate, each model answers the prompts too.
    """

    headline = "accuracy"
    notes: Sequence[str] = (
        "Accuracy: the share of rows whose chosen answer is likelier than the rejected one;"
        " margin: by how many nats, on average.",
    )

    def __init__(self, scoring: Scoring, compared: Sequence[Sequence[Row]]) -> None:
        """Prepare the sequences.

        Args:
            compared: of each example the better sequence, then the worse one, as `input_ids` and
                `labels`; further ones are left out.
        """
        super().__init__(scoring)
        self._rows = [row for rows in compared for row in rows[:2]]
        self._own = _own_answers(self, scoring, [rows[0] for rows in compared])

    def take(self, model: Any, name: str) -> Compared:
        """Compare the answers of every row."""
        nats = row_nats(model, self._rows, progress=self.scoring.say(f"{name} compares"))
        margins = [worse - better for better, worse in zip(nats[::2], nats[1::2], strict=True)]
        found = {"accuracy": _mean([m > 0 for m in margins]), "margin": _mean(margins)}
        own = self._own.take(model, name) if self._own else Contestant({})
        return Compared(
            {**found, **own.metrics}, own.texts, own.num_unfinished, margins=tuple(margins)
        )

    def row_scores(self, one: Contestant) -> list[float]:
        """Return whether each row's chosen answer is the likelier one."""
        return [float(margin > 0) for margin in cast("Compared", one).margins]


class VerdictEvaluator(Evaluator):
    """Ask each model whether good answers are likelier than bad ones, token for token."""

    headline = "auc"
    notes: Sequence[str] = (
        "AUC: how often a good answer is likelier than a bad one, over all pairs of them, by the"
        " mean of their tokens; margin: by how many nats a token, on average.",
    )

    def __init__(self, scoring: Scoring, rows: Sequence[Row], is_good: Sequence[bool]) -> None:
        """Prepare the sequences, each with its verdict."""
        super().__init__(scoring)
        self._rows, self._is_good = rows, is_good
        self._own = _own_answers(self, scoring, rows)

    def take(self, model: Any, name: str) -> Contestant:
        """Weigh every answer."""
        nats = row_nats(model, self._rows, progress=self.scoring.say(f"{name} weighs"))
        sides: dict[bool, list[float]] = {True: [], False: []}
        for value, row, is_good in zip(nats, self._rows, self._is_good, strict=True):
            num = sum(label != IGNORED for label in row["labels"])
            sides[is_good].append(-value / max(num, 1))
        metrics: dict[str, float | None] = {"auc": None, "margin": None}
        if sides[True] and sides[False]:
            metrics["auc"] = share_above(sides[True], sides[False])
            metrics["margin"] = _mean(sides[True]) - _mean(sides[False])
        own = self._own.take(model, name) if self._own else Contestant({})
        return Contestant({**metrics, **own.metrics}, own.texts, own.num_unfinished)

    def row_scores(self, one: Contestant) -> list[float]:
        """Return none: the metric is of pairs of rows."""
        del one
        return []


def share_above(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return how often one of `ones` exceeds one of `others`, ties by half (Mann-Whitney's U)."""
    ordered = sorted(others)
    wins = sum(bisect_left(ordered, one) + bisect_right(ordered, one) for one in ones)
    return wins / (2 * len(ones) * len(others))


def _own_answers(
    evaluator: Evaluator, scoring: Scoring, rows: Sequence[Mapping[str, Any]]
) -> GenerativeEvaluator | None:
    """Make what lets models answer themselves, if the recipe says how; share what it says of it."""
    if not scoring.generation:
        return None
    own = GenerativeEvaluator(replace(scoring, rows=[[dict(row)] for row in rows]))
    evaluator.references, evaluator.options = own.references, own.options
    evaluator.num_cut, evaluator.notes = own.num_cut, (*evaluator.notes, *own.notes)
    return own


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
