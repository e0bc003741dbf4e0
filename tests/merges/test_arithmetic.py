"""Weighted sums equal peft's, whatever the order, and what they combine is what they say."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from combined_fixture import WEIGHTS, by_peft, make_parts

from peftkit.merges.arithmetic import Cat, Linear, Svd, weighted_sum
from peftkit.merges.options import SvdWeights, Weights


@pytest.mark.parametrize(
    "merge",
    [Linear(Weights(weights=WEIGHTS)), Svd(SvdWeights(weights=WEIGHTS)),
     Cat(Weights(weights=WEIGHTS))],
)  # fmt: skip
def test_the_sum_is_peft_s_in_any_order(merge: Linear) -> None:
    parts = make_parts()
    wanted = by_peft("task_arithmetic", parts)
    for order in permutations(range(3)):
        combined = merge.combine([parts[i] for i in order], [WEIGHTS[i] for i in order], "w")
        np.testing.assert_allclose(combined, wanted, rtol=0, atol=1e-15)


def test_one_part_at_weight_one_is_itself_and_stays_unwritten() -> None:
    part = make_parts()[0]
    combined = weighted_sum([part], [1.0])
    assert np.array_equal(combined, part)
    assert combined is not part
