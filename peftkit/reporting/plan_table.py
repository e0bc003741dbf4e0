"""What was planned beside what was measured, laid out for the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.system.units import exact_duration, gibibytes

_TERMS = {
    "base": "Base",
    "adapter": "Adapter",
    "gradients": "Gradients",
    "optimizer": "Optimizer",
    "activations": "Saved activations",
    "loss": "Loss",
    "temporaries": "Temporaries",
    "runtime": "Runtime",
}


@dataclass(frozen=True)
class TermRow:
    """Show what one kind of memory takes at the planned peak."""

    label: str
    size: str
    """Empty where none is held at the peak."""
    percent: float
    """Of the largest term."""
    formula: str


@dataclass(frozen=True)
class ComparedRow:
    """Show one number as planned and as measured."""

    label: str
    planned: str
    planned_note: str
    measured: str
    measured_note: str
    difference: str
    """Planned against measured, in percent; empty where one of them is missing."""


@dataclass(frozen=True)
class PlanTable:
    """Hold the plan's terms, what was compared, and what the numbers are for."""

    terms: tuple[TermRow, ...]
    """Empty where no plan was written."""
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]


def lay_out_plan(plan: Mapping[str, Any], measured: Mapping[str, Any]) -> PlanTable | None:
    """Lay out `plan.json` beside `measured.json`, either of which may be empty; None without both.

    A time stands there as planned where it was predicted, which takes a device of known rates.
    """
    if not plan and not measured:
        return None
    speed: Mapping[str, Any] = next(iter(plan.get("speeds") or ()), {})
    rows = (_peak(plan, measured), *_times(speed, measured))
    return PlanTable(tuple(_terms(plan.get("terms") or ())), rows, tuple(_notes(plan, speed)))


def _terms(terms: Sequence[Mapping[str, Any]]) -> Iterator[TermRow]:
    if not terms:
        return
    found = {str(term.get("name")): term for term in terms}
    largest = max(int(term.get("num_bytes", 0)) for term in terms) or 1
    for name, label in _TERMS.items():
        term = found.get(name)
        if term is None:
            yield TermRow(label, "", 0.0, "")
            continue
        num_bytes = int(term.get("num_bytes", 0))
        formula = str(term.get("formula", ""))
        # A formula that is the number itself says nothing more.
        is_plain = formula == f"{num_bytes:,}"
        yield TermRow(
            label, gibibytes(num_bytes), round(100 * num_bytes / largest, 1),
            "" if is_plain else formula,
        )  # fmt: skip


def _peak(plan: Mapping[str, Any], measured: Mapping[str, Any]) -> ComparedRow:
    planned, real = plan.get("peak_bytes"), measured.get("peak_bytes")
    kind = str(measured.get("peak_kind") or "")
    return ComparedRow(
        "Peak memory",
        gibibytes(planned) if planned else "",
        f"in {plan.get('peak_phase', 'a step')}" if planned else "",
        gibibytes(real) if real else "",
        f"{kind} memory" if real and kind else "",
        _difference(planned, real),
    )


def _times(speed: Mapping[str, Any], measured: Mapping[str, Any]) -> Iterator[ComparedRow]:
    """Give time by step, token and run, predicted beside measured."""
    seconds, num_steps = measured.get("train_seconds"), measured.get("num_steps")
    per_step = seconds / num_steps if seconds and num_steps else None
    pairs = (
        ("Time a step", speed.get("seconds_per_step"), per_step, exact_duration),
        ("Tokens a second", speed.get("tokens_per_second"), measured.get("tokens_per_second"),
         "{:,.0f}".format),
        ("Whole training", speed.get("run_seconds"), seconds, exact_duration),
    )  # fmt: skip
    for label, planned, real, form in pairs:
        if planned or real:
            yield ComparedRow(
                label,
                form(planned) if planned else "",
                "predicted" if planned else "",
                form(real) if real else "",
                "",
                _difference(planned, real),
            )


def _notes(plan: Mapping[str, Any], speed: Mapping[str, Any]) -> Iterator[str]:
    if not plan:
        yield "This run has no plan: it could not be planned, or began before plans were written."
        return
    times = int(plan.get("accumulation") or 1)
    rows, length = int(plan.get("micro_batch") or 0), int(plan.get("length") or 0)
    yield (
        f"Planned for micro-batches of {rows:,} row{'' if rows == 1 else 's'} of {length:,} tokens,"
        f" the longest{f', {times:,} a step' if times > 1 else ''}."
    )
    limits = [
        f"{limit.get('name')} ({gibibytes(int(limit.get('num_bytes', 0)))})"
        for limit in plan.get("limits") or ()
    ]
    if limits:
        yield f"Held against {' and '.join(limits)} before any weight was read."
    if evaluation := plan.get("evaluation"):
        yield f"Scoring afterwards was planned to take {gibibytes(int(evaluation['num_bytes']))}."
    if speed:
        yield (
            f"Times are predicted for an average batch on {speed.get('device', 'this device')},"
            f" which spends most on {speed.get('bound', 'what is not known')}."
        )
    for note in plan.get("unknown") or ():
        yield f"Not planned: {note}."


def _difference(planned: float | None, real: float | None) -> str:
    return f"{100 * (planned / real - 1):+.1f} %" if planned and real else ""
