"""A proof holds when it was measured and lies within its tolerance."""

from __future__ import annotations

import math

import pytest

from peftkit.plugins.exported import Proof


@pytest.mark.parametrize(
    ("measured", "tolerance", "holds"),
    [(0.0, 0.0, True), (1e-6, 1e-5, True), (2e-5, 1e-5, False), (math.nan, 1.0, False)],
)
def test_a_proof_holds_within_its_tolerance_and_never_when_nothing_was_measured(
    measured: float, tolerance: float, holds: bool
) -> None:
    assert Proof("logits", measured, tolerance, "").holds is holds
