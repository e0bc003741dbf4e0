"""Traces add up, repeat what is repeated, and follow one another."""

from __future__ import annotations

import numpy as np

from peftkit.memory.trace import (
    Repeat,
    Segment,
    Trace,
    compile_trace,
    fixed_work,
    join_programs,
    sum_work,
)


def _layered(num_layers: int) -> Trace:
    """Each layer keeps one tensor (10 + its index) and has one temporary (5) on the way."""
    trace = Trace()

    def allocate(num_bytes: int, term: str) -> int:
        trace.num_bytes.append(num_bytes)
        trace.terms.append(term)
        return len(trace.num_bytes)

    kept = []
    for layer in range(num_layers):
        segment = Segment("forward", ("layers", layer), num_flops=7)
        kept.append(allocate(10, "activations"))
        temporary = allocate(5, "temporaries")
        segment.events = [kept[-1], temporary, -temporary]
        trace.segments.append(segment)
    for layer in reversed(range(num_layers)):
        trace.segments.append(Segment("backward", ("layers", layer), [-kept[layer]]))
    return trace


def test_a_repeated_layer_stands_for_as_many() -> None:
    few = compile_trace(_layered(3), [Repeat("layers", (1,), 6)])
    all_of_them = compile_trace(_layered(8))
    small, whole = _layered(3), _layered(8)
    live = few.live(np.array(small.num_bytes))
    expected = all_of_them.live(np.array(whole.num_bytes))
    assert np.array_equal(live.total, expected.total)
    assert live.total.max() == 8 * 10 + 5
    assert live.total[-1] == 0
    assert live.peak_phase == "forward"
    assert live.terms_at(live.peak_at) == {"activations": 80, "temporaries": 5}
    assert sum_work(small, [Repeat("layers", (1,), 6)])["forward"] == (8 * 7, 0, 0, 0, 0)


def _handed_on(num_layers: int) -> Trace:
    """Each layer frees what the layer before it left; the last one's lives on until backward."""
    trace = Trace([10] * num_layers, ["temporaries"] * (num_layers - 1) + ["activations"])
    for layer in range(num_layers):
        events = [layer + 1] if layer == 0 else [layer + 1, -layer]
        trace.segments.append(Segment("forward", ("layers", layer), events))
    trace.segments.append(Segment("backward", None, [-num_layers]))
    return trace


def test_a_layer_that_frees_another_ones_leaves_no_term_below_nothing() -> None:
    few, whole = _handed_on(4), _handed_on(12)
    live = compile_trace(few, [Repeat("layers", (3,), 9)]).live(np.array(few.num_bytes))
    expected = compile_trace(whole).live(np.array(whole.num_bytes))
    assert np.array_equal(live.total, expected.total)
    assert all(values.min() >= 0 for values in live.by_term.values())


def test_bytes_are_rounded_up_to_the_allocators_block() -> None:
    trace = _layered(2)
    program = compile_trace(trace)
    assert program.peak(np.array(trace.num_bytes), block=512) == 3 * 512


def test_joined_programs_go_on_from_what_the_first_left() -> None:
    weights = Trace([100], ["base"], [Segment("load", None, [1])])
    step = _layered(2)
    joined = join_programs([compile_trace(weights), compile_trace(step)])
    live = joined.live(np.array(weights.num_bytes + step.num_bytes))
    assert live.phase_peaks() == {"load": 100, "forward": 125, "backward": 110}
    assert joined.alive_after(len(joined.events) - 1) == {0: 1}


def test_a_phase_can_be_left_out() -> None:
    trace = _layered(2)
    trace.segments[0].phase = "load"
    assert compile_trace(trace, without="load").phase_names == ("forward", "backward")


def test_what_does_not_depend_on_the_batch_is_told_from_two_sizes() -> None:
    def counts(tokens: int) -> dict[str, tuple[int, ...]]:
        attention = 3 * tokens * tokens
        return {"forward": (500 + 7 * tokens + attention, 2000 + 11 * tokens, 9, 0, attention)}

    assert fixed_work(counts(100), counts(1000), (100, 1000)) == {"forward": (500, 2000)}
    # What grows faster than the tokens leaves nothing fixed, never less than nothing.
    steeper = {"forward": (10**6, 10**6, 9, 0, 0)}
    assert fixed_work(counts(10), steeper, (10, 20)) == {"forward": (0, 0)}
