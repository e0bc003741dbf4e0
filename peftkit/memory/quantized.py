"""What bitsandbytes stores of a quantized weight, as fake tensors that its own code can use.

Its parameter classes cannot be fake: their constructors quantize. The storage can.

4 bits (NF4 and FP4; QLoRA, arXiv 2305.14314, section 3; bitsandbytes 0.50.2, `functional.py`,
`quantize_4bit`): two weights a byte, and one float32 scale a block of 64. With double quantization
a scale is one byte, and 256 of them share a float32 scale of their own, beside one offset.

8 bits (LLM.int8, arXiv 2208.07339; `nn/modules.py`, `Int8Params`): one byte a weight and one
float32 scale a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

_NESTED_BLOCK = 256


def pack_module(module: torch.nn.Module, mode: FakeTensorMode) -> list[torch.Tensor]:
    """Give a quantized linear fake packed storage; return its tensors, none for other modules."""
    weight = module._parameters.get("weight")  # PEFT's wrappers have a property of the name
    kind = type(weight).__name__
    if kind == "Params4bit":
        return _pack_4bit(module, weight, mode)
    if kind == "Int8Params":
        return _pack_8bit(module, weight, mode)
    return []


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
