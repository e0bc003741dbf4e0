"""Bytes that processes exchange, by the papers' counts and by what two real ones send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftkit.planning.communication import STRATEGIES, Exchange, collectives, communicated_bytes

SIZES = st.integers(1, 10**9)


@given(SIZES, st.integers(2, 1024))
def test_replicas_send_what_a_ring_sends(num_bytes: int, n: int) -> None:
    """Patarasuk & Yuan's lower bound, which their ring meets."""
    assert communicated_bytes(Exchange("ddp", num_bytes), n) == round(2 * (n - 1) / n * num_bytes)
    both = (communicated_bytes(Exchange(way, num_bytes), n) for way in ("ddp", "zero2"))
    assert len({*both}) == 1


@given(SIZES, st.integers(2, 1024))
def test_cut_weights_send_half_as_much_again(num_bytes: int, n: int) -> None:
    """Rajbhandari et al., section 7.2.2: 3 Psi beside the 2 Psi of data parallel training."""
    replicas = communicated_bytes(Exchange("ddp", num_bytes), n)
    cut = communicated_bytes(Exchange("zero3", num_bytes, weight_bytes=num_bytes), n)
    assert cut == pytest.approx(1.5 * replicas, abs=2)


def test_weights_are_gathered_for_each_micro_batch_and_the_root_once() -> None:
    exchange = Exchange("fsdp2", 8, weight_bytes=100, root_bytes=20, micro_batches=3, num_units=4)
    gathered, reduced = collectives(exchange)
    assert (gathered.num_bytes, gathered.num_calls) == (3 * (2 * 80 + 20), 3 * 2 * 4)
    assert (reduced.num_bytes, reduced.num_calls) == (8, 4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_process_sends_nothing(strategy: str) -> None:
    assert communicated_bytes(Exchange(strategy, 100, weight_bytes=200), 1) == 0


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="'tp' is not one of"):
        Exchange("tp", 1)
