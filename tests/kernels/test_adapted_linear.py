"""The arithmetic under the fused layers: the small product, DoRA's norm, what is kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftkit.kernels.adapted_linear import Factors, adapted, small_product, weight_norm, with_delta


@given(
    rows=st.integers(1, 9),
    left=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    right=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_small_product_has_the_digits_of_both(
    rows: int, left: torch.dtype, right: torch.dtype
) -> None:
    torch.manual_seed(rows)
    x, factor = torch.randn(rows, 33).to(left), torch.randn(3, 33).to(right)
    found = small_product(x, factor)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), x.double() @ factor.double().t(), rtol=1e-5, atol=1e-5
    )


def test_two_parts_of_few_digits_have_those_of_one() -> None:
    """What an accelerator does with a float32 factor, here by float32 sums of bfloat16 products."""
    torch.manual_seed(0)
    x, factor = torch.randn(50, 64).bfloat16(), torch.randn(4, 64)
    high = factor.bfloat16()
    rest = (factor - high).bfloat16()
    found = x.float() @ high.float().t() + x.float() @ rest.float().t()
    exact = x.double() @ factor.double().t()
    alone = (x.float() @ high.float().t() - exact).norm() / exact.norm()
    assert (found - exact).norm() / exact.norm() < alone / 100


@given(scale=st.floats(0.1, 4), rank=st.integers(1, 5))
def test_doras_norm_is_that_of_the_weight_that_is_never_made(scale: float, rank: int) -> None:
    torch.manual_seed(rank)
    weight, down, up = torch.randn(7, 11), torch.randn(rank, 11), torch.randn(7, rank)
    exact = (weight.double() + scale * up.double() @ down.double()).norm(dim=1)
    found = weight_norm(weight, down, up, scale)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


def kept_numbers(y: torch.Tensor, x: torch.Tensor) -> int:
    """Count the numbers that a backward keeps beside the input and the parameters."""
    node = y.grad_fn.next_functions[0][0] if "View" in y.grad_fn.name() else y.grad_fn
    saved = {id(t): t for t in node.saved_tensors if t is not None and not t.requires_grad}
    return sum(t.numel() for t in saved.values() if t.data_ptr() != x.data_ptr())


def test_only_the_input_and_the_small_product_are_kept() -> None:
    x = torch.randn(10, 8)
    down, up = torch.randn(2, 8, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    weight = torch.randn(6, 8)
    (y,) = adapted(x, [Factors(weight, None, down, up, 1.0)])
    assert kept_numbers(y, x) == 10 * 2 + weight.numel()
    base = torch.randn(10, 6, requires_grad=True) * 1.0
    y = with_delta(base, x, Factors(down, None, down, up, 1.0))
    assert kept_numbers(y, x) == 10 * 2


def test_an_input_that_needs_no_gradient_costs_none() -> None:
    x = torch.randn(10, 8)
    down, up = torch.randn(2, 8, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    (y,) = adapted(x, [Factors(torch.randn(6, 8), None, down, up, 1.0)])
    y.sum().backward()
    assert x.grad is None and down.grad is not None and up.grad is not None


def test_a_model_may_write_into_an_output() -> None:
    x = torch.randn(2, 10, 8, requires_grad=True)
    down, up = torch.randn(2, 8, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    (y,) = adapted(x, [Factors(torch.randn(6, 8), None, down, up, 1.0)])
    y.mul_(2.0)
    y.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("read", [0, 1])
def test_an_output_that_nobody_reads_brings_no_gradient(read: int) -> None:
    x = torch.randn(10, 8, requires_grad=True)
    factors = [
        Factors(torch.randn(6, 8), None, torch.randn(2, 8, requires_grad=True),
                torch.randn(6, 2, requires_grad=True), 1.0)
        for _ in range(2)
    ]  # fmt: skip
    adapted(x, factors)[read].sum().backward()
    one, other = factors[read], factors[1 - read]
    expected = torch.ones(10, 6) @ (one.weight + one.up.detach() @ one.down.detach())
    torch.testing.assert_close(x.grad, expected)
    assert other.up.grad is None
    assert other.down.grad is None or not other.down.grad.any()
