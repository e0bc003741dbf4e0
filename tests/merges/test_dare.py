"""DARE with its documented masks equals the formula, and its expectation is the plain sum."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from combined_fixture import WEIGHTS, by_peft, make_parts

from peftkit.merges.dare import DareLinear, DareLinearSvd, DareTies, DareTiesSvd
from peftkit.merges.options import Chance, ChanceElection, SvdChance, SvdChanceElection


def dropped(parts: list[np.ndarray], density: float, seed: int, name: str) -> list[np.ndarray]:
    """Drop by the documented masks, in other words than the package's."""
    masks = [
        np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode()), i])).random(p.shape)
        for i, p in enumerate(parts)
    ]
    return [part * (mask < density) / density for part, mask in zip(parts, masks, strict=True)]


@pytest.mark.parametrize(("cls", "config"), [(DareLinear, Chance), (DareLinearSvd, SvdChance)])
def test_adding_what_chance_left_is_the_formula(cls, config) -> None:
    merge = cls(config(weights=WEIGHTS, density=0.4, seed=5))
    kept = dropped(make_parts(), 0.4, 5, "layer.weight")
    wanted = by_peft("task_arithmetic", kept)
    combined = merge.combine(make_parts(), WEIGHTS, "layer.weight")
    np.testing.assert_allclose(combined, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", ["total", "frequency"])
@pytest.mark.parametrize(
    ("cls", "config"), [(DareTies, ChanceElection), (DareTiesSvd, SvdChanceElection)]
)
@pytest.mark.filterwarnings("ignore:The density 1 is greater")
def test_electing_after_chance_is_peft_s_ties_of_what_it_left(cls, config, method: str) -> None:
    merge = cls(config(weights=WEIGHTS, density=0.4, seed=5, majority_sign_method=method))
    kept = dropped(make_parts(), 0.4, 5, "layer.weight")
    wanted = by_peft("ties", kept, density=1, majority_sign_method=method)
    combined = merge.combine(make_parts(), WEIGHTS, "layer.weight")
    np.testing.assert_allclose(combined, wanted, rtol=0, atol=1e-14)


def test_the_mean_over_seeds_is_the_weighted_sum() -> None:
    parts = make_parts()
    draws = np.array([
        DareLinear(Chance(weights=WEIGHTS, density=0.5, seed=seed)).combine(parts, WEIGHTS, "w")
        for seed in range(2000)
    ])  # fmt: skip
    error = np.abs(draws.mean(axis=0) - by_peft("task_arithmetic", parts))
    assert np.all(error <= 5 * draws.std(axis=0) / np.sqrt(len(draws)) + 1e-12)
