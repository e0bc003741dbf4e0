"""Pruning by size and adding gives exactly peft's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from combined_fixture import WEIGHTS, by_peft, make_parts

from peftkit.merges.magnitude import MagnitudePrune, MagnitudePruneSvd
from peftkit.merges.options import Density, SvdDensity


@pytest.mark.parametrize("density", [0.1, 0.5, 0.99])
def test_numbers_are_peft_s(density: float) -> None:
    wanted = by_peft("magnitude_prune", make_parts(), density=density)
    for merge in (
        MagnitudePrune(Density(weights=WEIGHTS, density=density)),
        MagnitudePruneSvd(SvdDensity(weights=WEIGHTS, density=density)),
    ):
        combined = merge.combine(make_parts(), WEIGHTS, "w")
        np.testing.assert_allclose(combined, wanted, rtol=0, atol=1e-15)
        assert np.array_equal(combined == 0, wanted == 0)
