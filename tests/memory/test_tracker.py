"""The tracker sees storages come and go, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from peftkit.memory import tracker as tracking
from peftkit.memory.fake import PlanningError
from peftkit.memory.trace import compile_trace
from peftkit.memory.tracker import Tracker


def _live(tracker: Tracker):
    trace = tracker.finish()
    return compile_trace(trace).live(np.array(trace.num_bytes, np.int64))


def test_views_and_inplace_operators_allocate_nothing() -> None:
    tracker = Tracker()
    with tracker:
        tracker.enter("forward")
        x = torch.zeros(100)
        x.view(10, 10).t().add_(1)
        del x
    assert _live(tracker).total.tolist() == [400, 0]


def test_what_outlives_the_forward_is_an_activation() -> None:
    weight = torch.zeros(50, 50, requires_grad=True)
    tracker = Tracker()
    tracker.hold([weight, weight], "base")
    with tracker:
        tracker.enter("forward")
        loss = (weight.exp() + 1).sum()  # exp is saved, the sum's input is not
        tracker.enter("backward")
        loss.backward()
        tracker.label([weight.grad], "gradients")
    live = _live(tracker)
    terms = {name: int(values.max()) for name, values in live.by_term.items()}
    assert terms["base"] == 10_000, "a storage counts once"
    assert terms["activations"] == 10_008, "exp's result, the loss, and the loss's gradient"
    assert terms["gradients"] == 10_000
    assert live.phase_peaks()["load"] == 10_000


def test_bytes_without_a_tensor_stay() -> None:
    tracker = Tracker()
    tracker.reserve(1000, "runtime")
    assert _live(tracker).by_term["runtime"].tolist() == [1000]


def test_products_are_counted_as_floating_point_operations() -> None:
    tracker = Tracker()
    with tracker:
        tracker.enter("forward")
        torch.zeros(3, 4) @ torch.zeros(4, 5)
    trace = tracker.finish()
    assert sum(s.num_flops for s in trace.segments) == 2 * 3 * 4 * 5


def test_what_a_layer_made_is_freed_in_its_name() -> None:
    tracker = Tracker()
    with tracker:
        tracker.enter("forward", ("layers", 1))
        first = torch.zeros(10)
        tracker.enter("forward", ("layers", 2))
        second = torch.zeros(20)
        tracker.enter("backward")
        del second, first
    places = [(s.phase, s.layer, s.events) for s in tracker.finish().segments if s.events]
    assert places[2:] == [
        ("backward", ("layers", 1), [-1]),
        ("backward", ("layers", 2), [-2]),
    ]


def test_what_is_resized_in_place_is_followed() -> None:
    tracker = Tracker()
    buffer = torch.empty(64)
    buffer.untyped_storage().resize_(0)
    tracker.watch([buffer], "collectives")
    with tracker:
        tracker.enter("forward")
        buffer.untyped_storage().resize_(256)
        held = torch.ones(8)
        buffer.untyped_storage().resize_(0)
        trace = tracker.finish()
    del held
    live = compile_trace(trace).live(np.array(trace.num_bytes))
    assert live.by_term["collectives"].tolist() == [256, 256, 0]
    assert live.total.max() == 256 + 32


def test_of_a_tensor_that_wraps_others_their_bytes_count() -> None:
    """The wrapper's own storage claims the bytes of its shape, and has none."""
    wrapper = TwoTensor(torch.zeros(100), torch.zeros(100))
    tracker = Tracker()
    tracker.hold([wrapper], "base")
    with tracker:
        tracker.enter("forward")
        doubled = wrapper * 2
        del doubled
    live = _live(tracker)
    assert live.by_term["base"].max() == 800
    assert live.by_term["temporaries"].max() == 800


def test_a_step_that_loops_over_tokens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "MOST_OPERATORS", 5)
    tracker = Tracker()
    with tracker:
        tracker.enter("forward")
        with pytest.raises(PlanningError, match="more than 5 operators"):
            for _ in range(6):
                torch.zeros(1)
