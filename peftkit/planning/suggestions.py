"""Changes that make a refused run fit, cheapest first, each planned before it is named."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from peftkit.memory.lengths import length_key
from peftkit.memory.planner import Plan, plan_run
from peftkit.memory.scoring import batch_size_that_fits, planned_evaluation
from peftkit.planning.levers import Levers, read_levers
from peftkit.planning.proposals import Settings, changed, micro_batches, overrides_of
from peftkit.system.units import gibibytes

if TYPE_CHECKING:
    from peftkit.plugins import Machine
    from peftkit.recipe.schema import Recipe

NUM_WAYS = 3
SPARE = 0.03
"""Share of the limit that stays free: a process holds some MiB more or less from call to call."""
_WORTH_IT = 0.05
"""Share of the peak, the runtime left out, below which a lever's term is too small for it."""
_TERMS = {"optimizer": "optimizer", "checkpointing": "activations", "quantization": "base"}
"""Lever -> the term that it shrinks, in the order of what they cost."""
_SHORTEST = 16
"""Tokens below which a row says too little to be trained on."""
_SHORT = 64
"""Tokens of the rows that the smallest setting is told for."""


@dataclass(frozen=True)
class WayOut:
    """Hold settings under which a run fits, with what it is then planned to take."""

    settings: Settings
    peak_bytes: int

    def __str__(self) -> str:
        return f"{_words(self.settings)} ({gibibytes(self.peak_bytes)})"


def ways_out(
    recipe: Recipe, machine: Machine, limit_bytes: int, lengths: Sequence[int], made: Plan
) -> list[WayOut]:
    """Find up to three changes that fit a limit; where none does, every change at once.

    Args:
        lengths: tokens of each training row.
        made: the plan of the recipe as it is.

    Returns: the cheapest first; empty where not even one short row fits.
    """
    finder = _Finder(recipe, machine, int(limit_bytes * (1 - SPARE)), lengths, made)
    every = chain(finder.with_fewer_rows(), finder.with_shorter_rows())
    return list(islice(every, NUM_WAYS)) or list(finder.with_everything())


def explain_smallest(recipe: Recipe, machine: Machine) -> str:
    """Say what the smallest setting of a recipe takes, which no limit below it can hold."""
    levers = read_levers(recipe, machine)
    settings = {
        **{key: value for choice in levers.savers().values() for key, value in choice.items()},
        **levers.batching_at(1),
        length_key(recipe): _SHORT,
    }
    made = _planned(recipe, machine, settings, [_SHORT])
    if made is None:
        return "a smaller base"
    return (
        f"a smaller base; the smallest setting of this one takes {gibibytes(made.needed_bytes)}:"
        f" {_words(settings)}"
    )


@dataclass(frozen=True)
class _Finder:
    recipe: Recipe
    machine: Machine
    limit: int
    lengths: Sequence[int]
    made: Plan

    @cached_property
    def levers(self) -> Levers:
        """Return what may be changed, the recipe's own keys included."""
        return read_levers(self.recipe, self.machine)

    def with_fewer_rows(self) -> Iterator[WayOut]:
        """Give a lever, or none, with the largest micro-batch that then fits and keeps the step.

        One that leaves no larger micro-batch than a cheaper one did is not named.
        """
        most = 0
        levers = list(self._levers())
        together = [self._all_levers()] if len(levers) > 1 else []
        for settings in ({}, *levers, *together):
            made = self.planned(settings)
            rows = 0 if made is None else self.rows_that_fit(made)
            if made is not None and (rows > most or rows == made.micro_batch):
                most = max(most, rows)
                peak = made.needs_at(micro_batch=rows, length=made.length)
                yield self._way_out(made, {**settings, **self.levers.batching_at(rows)}, peak)

    def with_shorter_rows(self) -> Iterator[WayOut]:
        """Give shorter rows, as far as the audit lets them be cut, where more of them then fit."""
        shortest = self._shortest_length()
        whole = self.rows_that_fit(self.made)
        for rows in self._sizes(self.made):
            tokens = self.made.longest_length(self.limit, micro_batch=rows)
            if rows > whole and tokens >= shortest:
                peak = self.made.needs_at(micro_batch=rows, length=tokens)
                shorter = {length_key(self.recipe): tokens}
                yield self._way_out(self.made, {**self.levers.batching_at(rows), **shorter}, peak)
                return

    def with_everything(self) -> Iterator[WayOut]:
        """Give every lever at once, one row a micro-batch, and the longest one that fits."""
        settings = self._all_levers()
        made = self.planned(settings)
        tokens = 0 if made is None else made.longest_length(self.limit, micro_batch=1)
        if made is not None and tokens >= _SHORTEST:
            shorter = {length_key(self.recipe): min(tokens, made.length)}
            peak = made.needs_at(micro_batch=1, length=min(tokens, made.length))
            everything = {**settings, **self.levers.batching_at(1), **shorter}
            yield self._way_out(made, everything, peak)

    def _way_out(self, made: Plan, settings: Settings, peak_bytes: int) -> WayOut:
        """Add what lets the scoring fit too: fewer prompts at once, or none scored here.

        Args:
            made: the plan under these settings, at any batch.
        """
        section, found = self.recipe.evaluate, planned_evaluation(made)
        if section is None or found is None or found.num_bytes <= self.limit:
            return WayOut(settings, peak_bytes)
        rows = batch_size_that_fits(made, section.batch_size, self.limit)
        scoring = {"evaluate.batch_size": rows} if rows else {"evaluate": False}
        return WayOut({**settings, **scoring}, peak_bytes)

    def planned(self, settings: Settings) -> Plan | None:
        """Plan the recipe under settings; None where the gate or the planner refuses them."""
        if not settings:
            return self.made
        return _planned(self.recipe, self.machine, settings, self.lengths)

    def rows_that_fit(self, made: Plan) -> int:
        """Return the largest micro-batch that fits and divides the rows of a step; 0 for none."""
        fits = (
            rows
            for rows in self._sizes(made)
            if made.needs_at(micro_batch=rows, length=made.length) <= self.limit
        )
        return next(fits, 0)

    def _levers(self) -> Iterator[dict[str, Any]]:
        """Give what each lever saves memory with, where its term is worth it."""
        savers = self.levers.savers()
        least = _WORTH_IT * (self.made.peak_bytes - self.made.term_bytes("runtime"))
        for name, term in _TERMS.items():
            if name in savers and self.made.term_bytes(term) > least:
                yield dict(savers[name])

    def _all_levers(self) -> dict[str, Any]:
        return {key: value for settings in self._levers() for key, value in settings.items()}

    def _sizes(self, made: Plan) -> list[int]:
        """Return the micro-batches that keep the rows of a step, the largest first."""
        return micro_batches(self.levers.rows_of_a_step, made.micro_batch)

    def _shortest_length(self) -> int:
        """Return the shortest `max_length` that the audit lets rows be cut at."""
        may_be_cut = int(self.recipe.data.audit.max_truncated * len(self.lengths))
        ordered = sorted(self.lengths, reverse=True)
        return max(_SHORTEST, ordered[min(may_be_cut, len(ordered) - 1)])


def _planned(
    recipe: Recipe, machine: Machine, settings: Settings, lengths: Sequence[int]
) -> Plan | None:
    under = changed(recipe, settings)
    return None if under is None else plan_run(under, machine, lengths)[0]


def _words(settings: Settings) -> str:
    """Write settings so that a shell takes them."""
    return " ".join(shlex.quote(text) for text in overrides_of(settings))
