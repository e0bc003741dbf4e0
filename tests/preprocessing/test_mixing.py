"""Weights and the order of several sources' rows, as properties."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.preprocessing.mixing import mix, num_copies


def key(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=60))
def test_every_row_is_seen_as_often_as_it_should_and_sources_are_spread(rows):
    sources, copies = [one for one, _ in rows], [n for _, n in rows]
    order = mix(sources, copies)
    assert Counter(order) == Counter({at: n for at, n in enumerate(copies) if n})
    totals = Counter(sources[at] for at in order)
    seen: Counter[int] = Counter()
    for place, at in enumerate(order, start=1):
        seen[sources[at]] += 1
        for source, total in totals.items():
            assert abs(seen[source] - total * place / len(order)) <= len(totals)


def test_a_fraction_is_kept_by_a_hash_of_the_row_alone():
    kept = [number for number in range(4000) if num_copies(key(number), 0.25)]
    assert 0.22 < len(kept) / 4000 < 0.28
    assert {num_copies(key(n), 2.5) for n in range(50)} == {2, 3}
    assert [num_copies(key(n), 2) for n in range(50)] == [2] * 50


def test_one_source_keeps_its_order():
    assert mix([0] * 5, [1] * 5) == [0, 1, 2, 3, 4]
