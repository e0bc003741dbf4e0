"""Fake quantized storage has the bytes of bitsandbytes' own, tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftkit.quantizers.bitsandbytes_storage import BitsAndBytesStorage

STORAGE = BitsAndBytesStorage()


def _bytes(tensors) -> list[int]:
    return sorted(
        {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values()
    )


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(96, 64), (160, 288)])
def test_storage_is_as_large_as_the_real_one(kind: str, double: bool, shape) -> None:
    import bitsandbytes as bnb
    from torch._subclasses.fake_tensor import FakeTensorMode

    def build(device: str) -> nn.Module:
        if kind == "int8":
            made = bnb.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False, device=device)
        else:
            made = bnb.nn.Linear4bit(
                *shape, bias=False, quant_type=kind, compress_statistics=double, device=device
            )
        return made.requires_grad_(False)

    real = build("cpu").to("cpu")
    fake = build("meta")
    real_parts = [*real.parameters(), *STORAGE.side_tensors(real)]
    fake_parts = STORAGE.pack(fake, FakeTensorMode())
    # The code book of nested scales may be shared between real modules; a fake one has its own.
    assert _bytes(fake_parts) == _bytes(real_parts)


def test_other_modules_are_left_alone() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    linear = nn.Linear(2, 2)
    assert STORAGE.pack(linear, FakeTensorMode()) == []
    assert isinstance(linear.weight, torch.Tensor)
