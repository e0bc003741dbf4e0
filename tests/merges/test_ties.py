"""TIES gives exactly peft's numbers, and the order of adapters does not matter."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from combined_fixture import WEIGHTS, by_peft, make_parts

from peftkit.merges.options import Election, SvdElection
from peftkit.merges.ties import Ties, TiesSvd, elected_mean


@pytest.mark.parametrize("method", ["total", "frequency"])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.filterwarnings("ignore:The density 1.0 is greater")
def test_numbers_are_peft_s_in_any_order(method: str, density: float) -> None:
    options = {"density": density, "majority_sign_method": method}
    parts = make_parts()
    wanted = by_peft("ties", parts, **options)
    for cls, config in ((Ties, Election), (TiesSvd, SvdElection)):
        merge = cls(config(weights=WEIGHTS, **options))
        for order in permutations(range(3)):
            combined = merge.combine([parts[i] for i in order], [WEIGHTS[i] for i in order], "w")
            np.testing.assert_allclose(combined, wanted, rtol=0, atol=1e-15)
            assert np.array_equal(combined == 0, wanted == 0)


def test_a_tie_of_votes_elects_plus_and_zeros_have_no_say_in_the_mean() -> None:
    parts = [np.array([2.0, 3.0, 0.0]), np.array([-2.0, 1.0, -4.0])]
    assert elected_mean(parts, [1.0, 1.0], "total").tolist() == [2.0, 2.0, -4.0]
    assert elected_mean(parts, [0.5, 1.0], "frequency").tolist() == [1.0, 1.25, -4.0]
