"""The CPU's own rates: plausible, and what a prediction makes of them."""

from __future__ import annotations

import pytest
from plan_fixture import linear_plan

from peftkit.planning.host_rates import measure_host
from peftkit.planning.roofline import predict


def test_rates_are_those_of_a_cpu() -> None:
    device = measure_host("cpu", 1 << 30)
    assert device.float32_flops is not None and device.bandwidth is not None
    assert 1e9 < device.float32_flops < 1e14
    assert 1e8 < device.bandwidth < 1e13
    assert device.has_rates


def test_a_prediction_uses_what_was_achieved() -> None:
    """A plan of nothing but one product of the measured size takes the measured time."""
    device = measure_host("cpu", 1 << 30)
    assert device.float32_flops is not None
    flops = 2 * 1024**3
    plan = linear_plan(fixed=0, per_token=1, flops=flops, moved=0, operators=3)
    speed = predict(plan, device, dtype="float32")
    assert speed is not None
    seconds = flops / (device.float32_flops * 0.8)
    assert speed.phase_seconds["forward"] + speed.phase_seconds["backward"] == pytest.approx(
        seconds, rel=0.01
    )
