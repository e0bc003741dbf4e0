"""What bitsandbytes stores of a quantized weight, as fake tensors that its own code can use.

Its parameter classes cannot be fake: their constructors quantize. The storage can.

4 bits (NF4 and FP4; QLoRA, arXiv 2305.14314, section 3; bitsandbytes 0.50.2, `functional.py`,
`quantize_4bit`): two weights a byte, and one float32 scale a block of 64. With double quantization
a scale is one byte, and 256 of them share a float32 scale of their own, beside one offset.

8 bits (LLM.int8, arXiv 2208.07339; `nn/modules.py`, `Int8Params`): one byte a weight and one
float32 scale a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from peftkit.plugins.quantizer import Operator, Storage

if TYPE_CHECKING:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

_NESTED_BLOCK = 256


def _gemm_4bit_workspace(a: Any, b: Any, shape: Any, absmax: Any, *_: Any, **kw: Any) -> int:  # noqa: ARG001
    """Return the weight that a 4-bit product dequantizes for itself, its scales included.

    Source: bitsandbytes 0.50.2, `backends/default/ops.py`, `_gemm_4bit_default_impl`, which CUDA
    takes too for more rows than its fused kernel likes.
    """
    weight = int(math.prod(shape)) * int(a.element_size())
    nested = kw.get("absmax_8bit")
    return weight + (2 * 4 * int(nested.numel()) if nested is not None else 0)


def _gemm_4bit_flops(a: Any, b: Any, shape: Any, *_: Any, **__: Any) -> int:  # noqa: ARG001
    return 2 * int(a.numel()) * int(shape[0])


class BitsAndBytesStorage(Storage):
    """Pack as bitsandbytes does."""

    operators = {"bitsandbytes::gemm_4bit": Operator(_gemm_4bit_workspace, _gemm_4bit_flops)}  # noqa: RUF012 - a constant of the class

    def pack(self, module: torch.nn.Module, mode: FakeTensorMode) -> list[torch.Tensor]:
        """Give a quantized linear its packed weight and scales; other modules have none."""
        weight = module._parameters.get("weight")  # PEFT's wrappers have a property of the name
        kind = type(weight).__name__
        if kind == "Params4bit":
            return _pack_4bit(module, weight, mode)
        if kind == "Int8Params":
            return _pack_8bit(module, weight, mode)
        return []

    def side_tensors(self, module: torch.nn.Module) -> Iterator[torch.Tensor]:
        """Give scales, codes and offsets.

        The module has them too, where a weight that was cut into shards has lost them.
        """
        for holder in (*module._parameters.values(), module):
            state = getattr(holder, "quant_state", None)
            while state is not None:
                yield from (t for t in (state.absmax, state.code, state.offset) if t is not None)
                state = state.state2
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if scales is None:
            scales = getattr(module._parameters.get("weight"), "SCB", None)
        if scales is not None:
            yield scales

    def is_packed(self, module: torch.nn.Module) -> bool:
        """Tell a weight of 4 bits, which has lost its shape."""
        return getattr(module._parameters.get("weight"), "quant_state", None) is not None

    def rejoin(self, module: Any) -> None:
        """Give a gathered weight its scales back, as bitsandbytes does with a class of its own."""
        module.weight.quant_state = module.quant_state

    def draw(
        self, parameter: Any, module: torch.nn.Module, values: Callable[[], torch.Tensor]
    ) -> torch.Tensor | None:
        """Quantize as loading does, on the device that the values are on."""
        from bitsandbytes.nn import Int8Params, Params4bit

        made: torch.Tensor
        if isinstance(parameter, Int8Params):
            numbers = values()
            # It quantizes nothing that lies on a device already (0.50.2, `Int8Params.to`).
            made = Int8Params(
                numbers.cpu(),
                requires_grad=False,
                has_fp16_weights=parameter.has_fp16_weights,
            )
        elif isinstance(parameter, Params4bit):
            made = Params4bit(
                numbers := values(),
                requires_grad=False,
                blocksize=parameter.blocksize,
                compress_statistics=parameter.compress_statistics,
                quant_type=parameter.quant_type,
                quant_storage=parameter.quant_storage,
                module=module,
            )
        else:
            return None
        return made.to(numbers.device)


def _pack_4bit(module: Any, weight: Any, mode: FakeTensorMode) -> list[torch.Tensor]:
    import torch
    from bitsandbytes.functional import QuantState

    num_weights, block = weight.numel(), weight.blocksize
    num_blocks = -(-num_weights // block)
    with mode:
        per_element = 2 * weight.quant_storage.itemsize
        packed = torch.empty((num_weights + 1) // per_element, 1, dtype=weight.quant_storage)
        code = torch.empty(16)
        nested: Any = None
        offset: Any = None
        if weight.compress_statistics:
            scales = torch.empty(num_blocks, dtype=torch.uint8)
            offset = torch.empty(())
            nested = QuantState(
                absmax=torch.empty(-(-num_blocks // _NESTED_BLOCK)),
                code=torch.empty(256),
                blocksize=_NESTED_BLOCK,
                dtype=torch.float32,
            )
        else:
            scales = torch.empty(num_blocks)
    state = QuantState(
        absmax=scales, shape=weight.shape, code=code, blocksize=block,
        quant_type=weight.quant_type, dtype=weight.dtype, offset=offset, state2=nested,
    )  # fmt: skip
    parameter: Any = torch.nn.Parameter(packed, requires_grad=False)
    parameter.quant_state = state
    del module.weight  # torch refuses to put a plain parameter in the place of a special one
    module.weight, module.quant_state = parameter, state
    parts: list[Any] = [parameter, scales, code]
    return parts if nested is None else [*parts, offset, nested.absmax, nested.code]


def _pack_8bit(module: Any, weight: Any, mode: FakeTensorMode) -> list[torch.Tensor]:
    import torch

    with mode:
        values = torch.empty(tuple(weight.shape), dtype=torch.int8)
        scales = torch.empty(weight.shape[0])
    parameter: Any = torch.nn.Parameter(values, requires_grad=False)
    parameter.CB = parameter.SCB = None
    del module.weight
    module.weight = parameter
    module.state.CB, module.state.SCB = parameter.data, scales
    return [parameter, scales]
