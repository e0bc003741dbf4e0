"""Where saved tensors lie when they are offloaded, for a fake run: on the device or on the host.

Imported once planning is sure: it subclasses torch's hooks of saved tensors. Neither of upstream's
contexts runs without an accelerator, so their rules stand here; tests hold them against upstream's
own code. A tensor of the host is one in pinned memory, which the tracker tells from the device's.

- trl's `activation_offloading` (trl 1.16, `models/activation_offloading.py`, with the defaults of
  `get_act_offloading_ctx_manager`): everything autograd saves goes, but for what is below 1,024
  bytes, parameters, and a storage that is on its way already: that one stays on the device until
  backward has read it. The last five tensors that went stay until their copies are done, and one
  that comes back stays until the node that follows is done.
- transformers' `activation_checkpointing_kwargs: {offload: true}` (transformers 5.23,
  `modeling_utils.py`, and torch's `save_on_cpu`): the inputs of checkpointed layers go, each as
  often as it is saved, and none stays.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from peftkit.memory.tracker import Tracker

SMALLEST = 1024
"""Bytes below which trl leaves a tensor where it is."""
NUM_STASHED = 5
"""Tensors that trl keeps on the device while they are copied."""


@dataclass(frozen=True)
class _Sent:
    host: torch.Tensor
    """In pinned memory."""
    layout: tuple[Any, ...]
    """Shape, strides and offset on the device."""


class OffloadedActivations(saved_tensors_hooks):
    """Keep what autograd saves where trl's `OffloadActivations` does, forward and backward."""

    def __init__(self, parameters: Iterable[torch.Tensor], tracker: Tracker) -> None:
        super().__init__(self._pack, self._unpack)
        self._tracker = tracker
        self._parameters = {p.untyped_storage()._cdata for p in parameters}
        self._ids = itertools.count(1)
        self._stayed: dict[int, torch.Tensor] = {}
        self._sent: dict[int, _Sent] = {}
        self._stash: dict[int, torch.Tensor] = {}
        """Those on their way to the host."""
        self._back: dict[int, torch.Tensor] = {}
        """Those that came back, until the next node is done."""
        self._storages: dict[int, tuple[int, Any]] = {}
        """Address of a storage -> a number that no other had, and what forgets it."""
        self._numbers = itertools.count()
        self._owners: dict[tuple[Any, ...], int] = {}
        """Storage, offset and dtype -> the saved tensor that holds it on the device."""
        self._keys: dict[int, tuple[Any, ...]] = {}
        self._graph: int | None = None
        """The backward that runs."""
        self._node: Any = None

    def _pack(self, tensor: torch.Tensor) -> int:
        number, key = next(self._ids), self._key(tensor)
        if key in self._owners:
            self._own(key, number)
            self._stayed[number] = tensor
        elif self._stays(tensor):
            self._stayed[number] = tensor
        else:
            self._offload(number, key, tensor)
        return number

    def _stays(self, tensor: torch.Tensor) -> bool:
        return (
            tensor.numel() * tensor.element_size() < SMALLEST
            or isinstance(tensor, torch.nn.Parameter | torch.nn.Buffer)
            or tensor.untyped_storage()._cdata in self._parameters
        )

    def _offload(self, number: int, key: tuple[Any, ...], tensor: torch.Tensor) -> None:
        is_broadcast = 0 in tensor.stride()
        if not is_broadcast and tensor.storage_offset():
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        elif not is_broadcast:
            tensor = tensor.contiguous()
        for other in list(itertools.takewhile(lambda n: n <= number - NUM_STASHED, self._stash)):
            self._leave_stash(other)
        source = tensor
        if is_broadcast:  # only what is really there is copied
            num = tensor.untyped_storage().nbytes() // tensor.element_size()
            source = torch.as_strided(tensor, (num,), (1,), 0)
        layout = (tensor.shape, tensor.stride(), tensor.storage_offset())
        self._sent[number] = _Sent(_to_host(source), layout)
        self._stash[number] = tensor
        self._own(key, number)

    def _unpack(self, number: int) -> torch.Tensor:
        if self._graph is None:
            self._begin_backward()
        if number in self._stayed:
            tensor = self._stayed.pop(number)
        else:
            tensor = self._bring_back(number, self._sent.pop(number))
        self._disown(number)
        return tensor

    def _begin_backward(self) -> None:
        self._graph = torch._C._current_graph_task_id()
        engine: Any = torch.autograd.Variable._execution_engine
        engine.queue_callback(self._back.clear)

    def _bring_back(self, number: int, sent: _Sent) -> torch.Tensor:
        node: Any = torch._C._current_autograd_node()
        done: list[int] = []
        if torch._C._current_graph_task_id() == self._graph and node is not self._node:
            self._node, done = node, list(self._back)
        if number in self._stash:
            node.register_hook(partial(self._after_node, done, None, 0))
            return self._stash[number]
        tensor = torch.as_strided(_to_device(sent.host), *sent.layout)
        self._back[number] = tensor
        node.register_hook(partial(self._after_node, done, number, _num_uses(tensor)))
        return tensor

    def _after_node(
        self, done: list[int], number: int | None, num_uses: int, outputs: Any, _inputs: Any
    ) -> Any:
        """Let go of what the node before brought back, and of what is still on its way."""
        if number in self._back and _num_uses(self._back[number]) > num_uses:
            del self._back[number]  # others hold it: trl leaves its end to the allocator
        for other in list(self._stash):
            self._leave_stash(other)
        for other in done:
            self._back.pop(other, None)
        return outputs

    def _leave_stash(self, number: int) -> None:
        # Of the last layers only, though the layer that it was saved in may stand for others.
        with self._tracker.freeing_once():
            del self._stash[number]
        self._disown(number)

    def _own(self, key: tuple[Any, ...], number: int) -> None:
        self._owners[key], self._keys[number] = number, key

    def _disown(self, number: int) -> None:
        key = self._keys.pop(number, None)
        if key is not None and self._owners.get(key) == number:
            del self._owners[key]

    def _key(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """Return what tells a stretch of memory from others; addresses are used again."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address not in self._storages:
            forget = weakref.ref(storage, lambda _: self._storages.pop(address, None))
            self._storages[address] = (next(self._numbers), forget)
        return self._storages[address][0], tensor.storage_offset(), tensor.dtype


def hold_checkpoints_on_host(model: torch.nn.Module) -> None:
    """Let checkpointed layers keep their inputs on the host, as `offload: true` does."""
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "_gradient_checkpointing_func")]
    for layer in layers:
        options = layer._gradient_checkpointing_func.keywords
        layer._gradient_checkpointing_func = partial(_checkpoint_on_host, **options)


def _checkpoint_on_host(function: Any, *args: Any, **options: Any) -> Any:
    with saved_tensors_hooks(_to_host, _to_device):
        return checkpoint(function, *args, **options)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, pin_memory=True).copy_(tensor)


def _to_device(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor).copy_(tensor)


def _num_uses(tensor: torch.Tensor) -> int:
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count
