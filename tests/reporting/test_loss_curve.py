"""A loss curve's coordinates stay in the drawing, keep every spike and skip what is no number."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.reporting.loss_curve import (
    HEIGHT,
    MAX_DOTS,
    MAX_POINTS,
    MAX_TABLE_ROWS,
    VIEW_WIDTH,
    lay_out,
)

LOSSES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60)


def _points(polyline: str) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in polyline.split())
    return [(float(x), float(y)) for x, y in pairs]


@given(losses=LOSSES, stride=st.integers(1, 50), first=st.integers(0, 10_000))
def test_every_point_is_inside_and_in_its_place(
    losses: list[float], stride: int, first: int
) -> None:
    metrics = [{"step": first + stride * i, "loss": loss} for i, loss in enumerate(losses)]
    curve = lay_out(metrics)
    assert curve is not None
    points = _points(curve.train)
    assert all(0 <= x <= VIEW_WIDTH and -0.1 <= y <= HEIGHT + 0.1 for x, y in points)
    # The y axis reads top down: labels fall while pixels rise, and the extremes are enclosed.
    labels = [float(tick.label) for tick in curve.y_ticks]
    assert labels == sorted(labels)
    pixels = [tick.at for tick in curve.y_ticks]
    assert pixels == sorted(pixels, reverse=True)
    assert (pixels[0], pixels[-1]) == (HEIGHT, 0)
    # A larger loss is never drawn lower, to a tenth of a pixel.
    if len(points) == len(losses):
        by_loss = sorted(zip(losses, (y for _, y in points), strict=True))
        assert all(low[1] >= high[1] - 0.11 for low, high in pairwise(by_loss))


def test_a_long_curve_keeps_its_spike() -> None:
    metrics = [{"step": step, "loss": 1.0} for step in range(1, 20_001)]
    metrics[12_345]["loss"] = 9.0
    curve = lay_out(metrics)
    assert curve is not None
    points = _points(curve.train)
    assert len(points) <= MAX_POINTS + 2
    assert min(y for _, y in points) < HEIGHT / 4
    assert len(curve.dots) <= MAX_DOTS
    assert len(curve.rows) <= MAX_TABLE_ROWS + 1
    assert curve.rows[-1][0] == 20_000


def test_what_is_no_number_is_counted_and_not_drawn() -> None:
    metrics = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": math.nan},
        {"step": 3, "loss": math.inf},
        {"step": 4, "loss": 1.0},
        {"step": 4, "eval_loss": 1.5},
        {"step": 5, "loss": None},
        {"epoch": 1.0},
    ]
    curve = lay_out(metrics)
    assert curve is not None
    assert curve.num_invalid == 2
    assert len(_points(curve.train)) == 2
    assert curve.rows == ((1, "2.0000", ""), (4, "1.0000", "1.5000"))
    assert curve.description == (
        "Training loss goes from 2.000 at step 1 to 1.000 at step 4 (lowest 1.000)."
        " Validation loss goes from 1.500 at step 4 to 1.500 at step 4 (lowest 1.500)."
    )


@pytest.mark.parametrize("metrics", [[], [{"step": 3}], [{"step": 1, "loss": math.nan}]])
def test_nothing_to_draw_is_no_curve(metrics: list[dict]) -> None:
    assert lay_out(metrics) is None


def test_a_smooth_line_is_drawn_through_many_points_only() -> None:
    few = lay_out([{"step": step, "loss": 1 + step % 2} for step in range(29)])
    many = lay_out([{"step": step, "loss": 1 + step % 2} for step in range(60)])
    assert few is not None
    assert many is not None
    assert few.smooth == ""
    heights = [y for _, y in _points(many.smooth)]
    # Alternating 1 and 2 smooth to near 1.5, the middle of the drawing.
    assert max(abs(y - HEIGHT / 2) for y in heights[1:-1]) < HEIGHT / 4
