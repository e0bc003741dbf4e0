"""A compression that says nothing cuts nothing."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from peftkit.plugins.combined import Compression


def test_a_compression_states_nothing_by_itself_and_stays_as_it_is() -> None:
    silent = Compression()
    assert (silent.rank, silent.clamp) == (None, None)
    with pytest.raises(FrozenInstanceError):
        silent.rank = 8  # type: ignore[misc]
