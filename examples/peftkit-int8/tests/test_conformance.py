"""The quantizer does what peftkit expects of every one, and says what it cannot do."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from peftkit_int8.quantizer import Config, Int8

from peftkit.errors import ResourceError, UsageError
from peftkit.testing import check_quantizer


@pytest.mark.parametrize("options", [{}, {"group_size": 32}])
def test_it_conforms(options: dict[str, Any]) -> None:
    """It trains, and its base takes the bytes that are planned, module by module."""
    check_quantizer(Int8, options)


@pytest.mark.parametrize(("size", "columns"), [(None, 64), (16, 16)])
def test_a_weight_is_off_by_half_a_step_at_most(size: int | None, columns: int) -> None:
    """Symmetric: the 255 steps of int8 reach from minus the largest number to the largest."""
    import torch

    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
    back = Int8(Config(group_size=size)).there_and_back(weight)
    error = (back - weight).abs().reshape(-1, columns).amax(1)
    step = weight.abs().reshape(-1, columns).amax(1) / 127.5
    assert (error <= 0.5001 * step).all()
    assert (error > 0).all()


def test_a_group_that_does_not_divide_the_columns_is_refused() -> None:
    import torch

    with pytest.raises(UsageError, match="group_size 48 does not divide the 64 columns"):
        Int8(Config(group_size=48)).there_and_back(torch.zeros(2, 64))


def test_a_missing_torchao_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ResourceError, match="needs torchao") as caught:
        Int8(Config()).check(device="cpu")
    assert caught.value.hint == "pip install 'peftkit[torchao]'"
