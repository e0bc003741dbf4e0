"""Factors are the best of their rank, and their loss is what the singular values say."""

from __future__ import annotations

import pytest
import torch

from peftkit.exporters.low_rank import factor


def _matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_the_loss_is_the_sum_of_the_other_singular_values_squared(shape: tuple[int, int]) -> None:
    matrix = _matrix(*shape)
    values = torch.linalg.svdvals(matrix)
    for rank in (1, 7, 20):
        factors = factor(matrix, rank)
        assert factors.rank == rank
        lost = float((values[rank:] ** 2).sum())
        assert factors.squared_error(matrix) == pytest.approx(lost, rel=1e-5, abs=1e-9)


def test_no_more_rank_is_used_than_there_is() -> None:
    matrix = _matrix(40, 3) @ _matrix(3, 50, seed=1)
    factors = factor(matrix, 16)
    assert factors.rank == 3
    assert factors.squared_error(matrix) < 1e-9 * float((matrix**2).sum())
    assert factor(torch.zeros(4, 6), 2).rank == 1


def test_padding_changes_nothing() -> None:
    matrix = _matrix(12, 9)
    factors = factor(matrix, 4)
    padded = factors.padded(8)
    assert (padded.left.shape, padded.right.shape) == ((12, 8), (8, 9))
    assert padded.squared_error(matrix) == pytest.approx(factors.squared_error(matrix))


def test_large_matrices_are_factored_as_well_and_alike_each_time() -> None:
    matrix = _matrix(1100, 1050)
    matrix = matrix @ torch.diag(0.9 ** torch.arange(1050.0)).double()
    before = torch.get_rng_state()
    first, second = factor(matrix, 8), factor(matrix, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.left, second.left)
    values = torch.linalg.svdvals(matrix)
    assert first.squared_error(matrix) <= float((values[8:] ** 2).sum()) * 1.001
