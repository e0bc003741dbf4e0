"""Give a model on meta random weights, tensor by tensor, so that a benchmark needs no download.

A quantized weight is drawn in full precision, quantized on the device and dropped before the next
one, as loading a checkpoint does; a 70B base in 4 bits never needs more than one matrix beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.plugins.quantizer import PLAIN, Storage

if TYPE_CHECKING:
    import torch

_SCALE = 0.02
"""Standard deviation of matrices, as most configurations initialise them: the loss is finite."""


def fill_with_random(
    model: torch.nn.Module, *, device: str, seed: int, storage: Storage = PLAIN
) -> None:
    """Replace every meta tensor of a model, in place, by a random one on a device.

    Shared tensors stay shared. Norms become the identity and buffers numbers between 0 and 1:
    good for time and memory, not for what the model says.

    Args:
        storage: how the base's weights are packed.
    """
    import torch

    draw = _Draw(device, torch.Generator(device).manual_seed(seed), storage)
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in list(table.items()):
                if tensor is not None and tensor.is_meta:
                    table[name] = draw(tensor, module)
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and value.is_meta:
                setattr(module, name, draw(value, module))


class _Draw:
    """Draw each tensor once."""

    def __init__(self, device: str, generator: torch.Generator, storage: Storage) -> None:
        self.device = device
        self.storage = storage
        self.generator = generator
        self.made: dict[int, Any] = {}
        self.kept: list[Any] = []
        """The meta tensors drawn so far: alive, so that no address is given out twice."""

    def __call__(self, tensor: Any, module: Any) -> Any:
        if id(tensor) not in self.made:
            self.made[id(tensor)] = self._make(tensor, module)
            self.kept.append(tensor)
        return self.made[id(tensor)]

    def _make(self, tensor: Any, module: Any) -> Any:
        import torch

        packed = self.storage.draw(tensor, module, lambda: self._matrix(tensor))
        if packed is not None:
            return packed
        values = self._values(tensor, is_buffer=not isinstance(tensor, torch.nn.Parameter))
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(values, requires_grad=tensor.requires_grad)
        return values

    def _matrix(self, tensor: Any) -> Any:
        import torch

        values = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        return values.normal_(std=_SCALE, generator=self.generator)

    def _values(self, tensor: Any, *, is_buffer: bool) -> Any:
        import torch

        values = torch.zeros(tensor.shape, dtype=tensor.dtype, device=self.device)
        if not values.is_floating_point():
            return values
        if is_buffer:
            return values.uniform_(generator=self.generator)
        if values.dim() < 2:
            return values.fill_(1.0)
        return values.normal_(std=_SCALE, generator=self.generator)
