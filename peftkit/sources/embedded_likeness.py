"""Pairs of sentences that are more or less alike, made of the sample's summaries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

MOST = 5
"""As STS-B counts: from 0, of which no word is kept, to 5, the same sentence."""


def with_likeness(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give every row `other`, its summary spliced with another row's, and `likeness`.

    A hash of the summary says how many fifths of its words are kept, at which end, and whose words
    stand in the place of the rest; so that it is the same wherever it is read.
    """
    hashes = [hashlib.sha256(row["summary"].encode()).digest() for row in rows]
    order = sorted(range(len(rows)), key=lambda at: hashes[at])
    following = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    made = []
    for at, row in enumerate(rows):
        own, foreign = row["summary"].split(), rows[following[at]]["summary"].split()
        num_kept = round(len(own) * (hashes[at][0] % (MOST + 1)) / MOST)
        is_head = hashes[at][1] % 2 == 0
        other = splice(own, foreign, num_kept) if is_head else _splice_tail(own, foreign, num_kept)
        likeness = round(MOST * num_kept / len(own), 2)
        made.append({**row, "other": " ".join(other), "likeness": likeness})
    return made


def splice(own: Sequence[str], foreign: Sequence[str], num_kept: int) -> list[str]:
    """Keep the first words of one sentence, and go on with those of another from there."""
    return [*own[:num_kept], *([] if num_kept == len(own) else foreign[num_kept:])]


def _splice_tail(own: Sequence[str], foreign: Sequence[str], num_kept: int) -> list[str]:
    return splice(own[::-1], foreign[::-1], num_kept)[::-1]
