"""The CPU's own rates are plausible."""

from __future__ import annotations

from peftkit.planning.host_rates import measure_host


def test_rates_are_those_of_a_cpu() -> None:
    device = measure_host("cpu", 1 << 30)
    assert device.float32_flops is not None and device.bandwidth is not None
    assert 1e9 < device.float32_flops < 1e14
    assert 1e8 < device.bandwidth < 1e13
    assert device.has_rates
