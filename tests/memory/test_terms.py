"""What is alive at the peak is told term by term, and the host's memory apart from the device's."""

from __future__ import annotations

import numpy as np

from peftkit.memory.terms import host_bytes, timeline_of
from peftkit.memory.trace import HOST, Segment, Trace, compile_trace


def _live():
    trace = Trace(
        [100, 30, 7],
        ["base", HOST, "activations"],
        [Segment("load", None, [1]), Segment("forward", None, [3, 2]), Segment("step", None, [-2])],
    )
    return compile_trace(trace).live(np.array(trace.num_bytes))


def test_the_hosts_memory_is_not_the_devices() -> None:
    live = _live()
    assert host_bytes(live) == 30
    assert live.total.tolist() == [100, 107, 107, 107]
    assert live.terms_at(2) == {"base": 100, HOST: 30, "activations": 7}


def test_a_timeline_has_the_peak() -> None:
    moments = timeline_of(_live(), num_moments=2)
    assert [moment.phase for moment in moments] == ["load", "forward", "step"]
    assert moments[1].num_bytes == {"base": 100, HOST: 0, "activations": 7}
