"""Predicted times lie between no and all hiding, and follow the model's equations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.planning.communication import STRATEGIES, Collective, Exchange
from peftkit.planning.scaling import DGX_A100, Links, collective_seconds, scale

LINKS = Links(within=100.0, between=10.0, share=1.0, seconds_within=1.0, seconds_between=2.0)


def test_a_collective_takes_its_hops_and_its_bytes() -> None:
    reduced = Collective("all_reduce", 800, 1)
    assert collective_seconds(reduced, LINKS, 2) == 2 * 1 + 2 * 0.5 * 800 / 100
    assert collective_seconds(reduced, LINKS, 8) == 6 * 1 + 2 * 7 / 8 * 800 / 100
    assert collective_seconds(reduced, LINKS, 16) == 8 * 2 + 2 * 15 / 16 * 800 / 10
    gathered = Collective("all_gather", 800, 3)
    assert collective_seconds(gathered, LINKS, 4) == 3 * 3 * 1 + 3 / 4 * 800 / 100
    assert collective_seconds(gathered, LINKS, 1) == 0


@given(
    st.sampled_from(STRATEGIES),
    st.integers(0, 10**11),
    st.integers(1, 1024),
    st.floats(0.01, 100),
    st.floats(0, 1),
)
def test_the_worst_is_no_better_than_the_best(
    strategy: str, num_bytes: int, num_gpus: int, seconds: float, share: float
) -> None:
    found = scale(seconds, share, Exchange(strategy, num_bytes, num_bytes), DGX_A100, num_gpus)
    assert 0 < found.worst_efficiency <= found.best_efficiency * (1 + 1e-12)
    assert found.best_efficiency <= 1 + 1e-12
    assert found.worst_seconds == pytest.approx(seconds + found.exchange_seconds)
    if num_gpus == 1:
        assert found.best_seconds == pytest.approx(seconds)


def test_it_says_that_it_is_predicted() -> None:
    content = scale(1.0, 0.5, Exchange("ddp", 10), DGX_A100, 8).to_json()
    assert content["basis"] == "predicted"
    assert content["efficiency"] == pytest.approx([1.0, 1.0], abs=1e-3)
