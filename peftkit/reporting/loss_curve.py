"""Lay a loss curve out as coordinates that the report's template draws.

Horizontal places are percentages and vertical ones pixels, so that the drawing takes any
width without scaling its text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEIGHT = 260
"""Pixels from the top of the plot to its x axis."""
VIEW_WIDTH = 1000
"""Units of the stretched coordinate system that the lines are drawn in."""
MAX_POINTS = 400
MAX_DOTS = 120
MAX_TABLE_ROWS = 40


@dataclass(frozen=True)
class Tick:
    """Place one label on an axis."""

    at: float
    """Pixels from the top on the y axis, percent from the left on the x axis."""
    label: str
    anchor: str = "middle"
    """SVG `text-anchor`, so that the outermost labels stay inside."""


@dataclass(frozen=True)
class Dot:
    """Place one point that shows its values on hover."""

    x: float
    """Percent."""
    y: float
    """Pixels."""
    title: str
    is_validation: bool


@dataclass(frozen=True)
class LossCurve:
    """Hold everything the template draws."""

    train: str
    """Points of an SVG polyline in `VIEW_WIDTH` by `HEIGHT` units."""
    smooth: str
    """The same, smoothed; empty when there are few points."""
    validation: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    rows: tuple[tuple[int, str, str], ...]
    """Step, training loss and validation loss for the table beside the drawing."""
    description: str
    num_invalid: int
    """Logged losses that are not numbers."""


def lay_out(metrics: Sequence[Mapping[str, Any]]) -> LossCurve | None:
    """Lay out the losses of a run's `metrics.jsonl`; None when it holds none."""
    train, invalid_train = _series(metrics, "loss")
    validation, invalid_validation = _series(metrics, "eval_loss")
    if not train and not validation:
        return None
    both = train + validation
    y_ticks = _nice(min(y for _, y in both), max(y for _, y in both), count=5)
    low, high = y_ticks[0], y_ticks[-1]
    first, last = min(x for x, _ in both), max(x for x, _ in both)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return across * 100, (high - y) / (high - low) * HEIGHT

    smooth = _smoothed(train) if len(train) >= 30 else []
    return LossCurve(
        train=_polyline(_thin(train, MAX_POINTS), place),
        smooth=_polyline(_thin(smooth, MAX_POINTS), place),
        validation=_polyline(validation, place),
        dots=_dots(train, validation, place),
        x_ticks=_x_ticks(first, last),
        y_ticks=tuple(Tick(place(first, y)[1], _short(y, high - low)) for y in y_ticks),
        rows=_table(train, validation),
        description=_describe(train, validation),
        num_invalid=invalid_train + invalid_validation,
    )


def _series(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[list[tuple[int, float]], int]:
    logged = [
        (int(m["step"]), float(m[name]))
        for m in metrics
        if isinstance(m.get(name), int | float) and isinstance(m.get("step"), int | float)
    ]
    valid = sorted((x, y) for x, y in logged if math.isfinite(y))
    return valid, len(logged) - len(valid)


def _nice(low: float, high: float, *, count: int) -> list[float]:
    """Return evenly spaced round numbers that enclose a range."""
    span = (high - low) or max(abs(high), 1.0) * 0.1
    raw = span / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    start, end = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(start, max(end, start + 1) + 1)]


def _short(value: float, span: float) -> str:
    decimals = max(0, 1 - math.floor(math.log10(span))) if span else 2
    return f"{value:.{min(decimals, 6)}f}"


def _x_ticks(first: float, last: float) -> tuple[Tick, ...]:
    if last <= first:
        return (Tick(50, f"{int(first):,}"),)
    inner = [x for x in _nice(first, last, count=5) if first < x < last and x == int(x)]
    room = (last - first) * 0.08
    kept = [x for x in inner if x - first > room and last - x > room]
    middle = [Tick((x - first) / (last - first) * 100, f"{int(x):,}") for x in kept]
    return (Tick(0, f"{int(first):,}", "start"), *middle, Tick(100, f"{int(last):,}", "end"))


def _thin(points: list[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    """Keep the lowest and the highest point of each bucket, so that no spike is lost."""
    if len(points) <= limit:
        return points
    size = math.ceil(len(points) / (limit // 2))
    kept: list[tuple[int, float]] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        extremes = {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
        kept.extend(sorted(extremes))
    return kept


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Average over a centred window of a twentieth of the points."""
    reach = max(1, len(points) // 40)
    values = [y for _, y in points]
    smooth = []
    for index, (x, _) in enumerate(points):
        window = values[max(0, index - reach) : index + reach + 1]
        smooth.append((x, sum(window) / len(window)))
    return smooth


def _polyline(points: list[tuple[int, float]], place: Any) -> str:
    placed = (place(x, y) for x, y in points)
    return " ".join(f"{x * VIEW_WIDTH / 100:.1f},{y:.1f}" for x, y in placed)


def _dots(
    train: list[tuple[int, float]], validation: list[tuple[int, float]], place: Any
) -> tuple[Dot, ...]:
    stride = math.ceil(len(train) / MAX_DOTS) or 1
    dots = []
    for points, is_validation in ((train[::stride], False), (validation, True)):
        label = "validation loss" if is_validation else "loss"
        for step, loss in points:
            x, y = place(step, loss)
            title = f"step {step:,}: {label} {loss:.4f}"
            dots.append(Dot(round(x, 3), round(y, 1), title, is_validation))
    return tuple(dots)


def _table(
    train: list[tuple[int, float]], validation: list[tuple[int, float]]
) -> tuple[tuple[int, str, str], ...]:
    stride = math.ceil(len(train) / MAX_TABLE_ROWS) or 1
    sampled = dict(train[::stride] + train[-1:])
    evaluated = dict(validation)
    steps = sorted(sampled.keys() | evaluated.keys())
    return tuple(
        (
            step,
            f"{sampled[step]:.4f}" if step in sampled else "",
            f"{evaluated[step]:.4f}" if step in evaluated else "",
        )
        for step in steps
    )


def _describe(train: list[tuple[int, float]], validation: list[tuple[int, float]]) -> str:
    parts = []
    for label, points in (("Training loss", train), ("Validation loss", validation)):
        if points:
            (first, start), (last, end) = points[0], points[-1]
            lowest = min(y for _, y in points)
            parts.append(
                f"{label} goes from {start:.3f} at step {first:,} to {end:.3f} at step {last:,}"
                f" (lowest {lowest:.3f})."
            )
    return " ".join(parts)
