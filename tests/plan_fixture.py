"""Plans made by formula, so that what is built on plans is tested without the planner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from peftkit.memory.evaluation import EvaluationPeak
from peftkit.memory.growth import Footprint
from peftkit.memory.planner import Plan, Work
from peftkit.memory.sharing import ALONE
from peftkit.memory.terms import Term

GIB = 1 << 30


@contextmanager
def each_plan_made_once(made: dict[tuple[Any, ...], Any]) -> Iterator[None]:
    """Let suggestions make no plan twice: the tests of a module ask for the same ones.

    Args:
        made: holds the plans; from one call to the next where it is the same.
    """
    from peftkit.memory.planner import plan_run

    def plan_once(recipe: Any, machine: Any, lengths: Sequence[int]) -> Any:
        key = repr(recipe), machine, tuple(lengths)
        if key not in made:
            made[key] = plan_run(recipe, machine, lengths)
        return made[key]

    with patch("peftkit.planning.suggestions.plan_run", plan_once):
        yield


@dataclass(frozen=True)
class LinearPlan(Plan):
    """A plan whose peak is `fixed + rows * tokens * per_token`."""

    fixed_bytes: int = 0
    bytes_per_token: int = 0

    def bytes_at(self, *, micro_batch: int, length: int) -> int:
        return self.fixed_bytes + micro_batch * length * self.bytes_per_token

    def largest_micro_batch(self, device_bytes: int) -> int:
        left = device_bytes - self.fixed_bytes
        return max(0, left // (self.length * self.bytes_per_token))

    def longest_length(self, device_bytes: int, *, micro_batch: int | None = None) -> int:
        left = device_bytes - self.fixed_bytes
        return max(0, left // ((micro_batch or self.micro_batch) * self.bytes_per_token))


def _no_footprint(rows: int) -> Footprint:
    raise AssertionError(f"a formula needs no footprint of {rows} rows")


def linear_plan(
    *,
    fixed: int,
    per_token: int,
    rows: int = 1,
    length: int = 1024,
    accumulation: int = 1,
    flops: int = 10**12,
    moved: int = 10**9,
    operators: int = 1000,
    num_tokens: int | None = None,
    padded_tokens: int | None = None,
    scoring: Callable[[int | None], EvaluationPeak | None] = lambda _: None,
) -> LinearPlan:
    """Make a plan whose forward, loss and backward cost 1/3, 0 and 2/3 of the given work."""
    work = {
        "forward": Work(flops // 3, moved // 3, operators // 3),
        "backward": Work(2 * flops // 3, 2 * moved // 3, 2 * operators // 3),
        "step": Work(0, moved // 10, 10),
        "evaluate": Work(flops, moved, operators),
    }
    return LinearPlan(
        peak_bytes=fixed + rows * length * per_token,
        peak_phase="backward",
        terms=(Term("base", fixed, "load", "", True),),
        phase_bytes={},
        timeline=(),
        micro_batch=rows,
        length=length,
        accumulation=accumulation,
        device="cuda",
        work=work,
        num_tokens=rows * length if num_tokens is None else num_tokens,
        padded_tokens=rows * length if padded_tokens is None else padded_tokens,
        host_bytes=0,
        sharing=ALONE,
        unknown=(),
        seconds=0.0,
        footprints=_no_footprint,
        scoring=scoring,
        fixed_bytes=fixed,
        bytes_per_token=per_token,
    )
