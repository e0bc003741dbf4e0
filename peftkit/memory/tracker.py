"""Follow every allocation of a step, on real or fake tensors, from operator to operator.

Imported once planning is sure: unlike the modules around it, it needs torch at the top. What it
sees are storages: a view allocates nothing, and a storage lives until the last tensor, saved
tensor or gradient that shares it is gone. What an operator allocates and frees inside itself is
invisible from here, so the few operators that do so on purpose are listed in `WORKSPACES`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from peftkit.memory.fake import PlanningError
from peftkit.memory.terms import COLLECTIVES
from peftkit.memory.trace import HOST, Segment, Trace
from peftkit.memory.wrapped import is_wrapper, parts_of
from peftkit.plugins.quantizer import PLAIN, Storage

_ACTIVATIONS, _LOSS, _TEMPORARIES = "activations", "loss", "temporaries"
_METADATA = frozenset({torch.ops.prim.device.default, torch.ops.prim.layout.default})
"""Questions that a fake tensor answers through dispatch; no kernel runs."""
_DEVICE = torch.ops.prim.device.default
"""Most of what is dispatched in a fake run asks this."""
MOST_OPERATORS = 40_000
"""A step of 80 different layers takes about half; a Mamba's scan without its kernels far more."""
_COPY = torch.ops.aten.copy_.default


@dataclass
class _Watched:
    storage: torch.UntypedStorage
    term: str
    num_bytes: int = 0
    number: int = 0
    """Its allocation, while it holds anything."""


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch is
    """Record allocations and frees while active; everything held before counts from `hold`."""

    def __init__(self, storage: Storage = PLAIN) -> None:
        """Be ready to follow a model.

        Args:
            storage: how its weights are packed.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        register_operators(storage)
        self.storage = storage
        self.trace = Trace()
        self._numbers: dict[int, int] = {}
        """Address of a storage that is alive -> its allocation."""
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._born: list[str] = []
        """Allocation -> the term its birth suggests; see `finish`."""
        self._birth_places: list[Segment] = []
        self._death_phases: dict[int, str] = {}
        self._labels: dict[int, str] = {}
        self._owed: list[int] = []
        """Allocations of layers that were freed outside of any, all in one go; see `_settle`."""
        self._watched: dict[int, _Watched] = {}
        """Address of a storage that is resized in place -> what it held when it was last seen."""
        self._frees_once = False
        self._is_finished = False
        self._num_operators = 0
        self.enter("load")

    def enter(self, phase: str, layer: tuple[str, int] | None = None) -> None:
        """Begin a new segment: another phase, or another layer's part of it."""
        self._look_again()
        self._settle()
        self._begin(phase, layer)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do without torch's guard against compiling this: no step is compiled, every call pays."""
        return False

    @property
    def phase(self) -> str:
        """Return the phase that was entered last."""
        return self._segment.phase

    def hold(self, tensors: Iterable[torch.Tensor], term: str) -> None:
        """Count tensors that exist already, each storage once."""
        for part in _all_parts(tensors):
            self._meet(part)
            self.label([part], term)

    def watch(self, tensors: Iterable[torch.Tensor], term: str) -> None:
        """Follow storages that are resized in place, which no operator tells of."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._watched[storage._cdata] = _Watched(storage, term)

    def reserve(self, num_bytes: int, term: str) -> None:
        """Count bytes that no tensor stands for, until the end of the trace."""
        number = self._allocate(num_bytes, _TEMPORARIES)
        self._labels[number] = term

    def label(self, tensors: Iterable[torch.Tensor], term: str) -> None:
        """Say what tensors are, whatever they were born as."""
        for part in _all_parts(tensors):
            number = self._numbers.get(part.untyped_storage()._cdata)
            if number is not None:
                self._labels[number] = term

    @contextmanager
    def freeing_once(self) -> Iterator[None]:
        """Record what is freed in here once, also where the layer of its birth stands for more."""
        before, self._frees_once = self._frees_once, True
        try:
            yield
        finally:
            self._frees_once = before

    def finish(self) -> Trace:
        """Stop listening, and return the trace with a term for every allocation."""
        self._look_again()
        self._settle()
        self._is_finished = True
        self.trace.terms = [
            self._labels.get(number) or self._term(number) for number in range(len(self._born))
        ]
        self._references.clear()
        return self.trace

    def _give_up_on_loops(self) -> None:
        self._num_operators += 1
        if self._num_operators > MOST_OPERATORS:
            raise PlanningError(
                f"one step takes more than {MOST_OPERATORS:,} operators, as where a model loops"
                " over the tokens of a row: following it would take longer than a step",
                hint="train for one step instead: the run probes its longest batch first",
            )

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator and record what it brought to life."""
        kwargs = kwargs or {}
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if func in _METADATA:
            return func(*args, **kwargs)
        if any(map(is_wrapper, types)):
            return NotImplemented  # the tensors inside come by on their own
        self._give_up_on_loops()
        self._look_again()
        result = func(*args, **kwargs)
        workspace = WORKSPACES.get(func)
        if workspace is not None:
            num_bytes = workspace(*args, **kwargs)
            self._free(self._allocate(num_bytes, _TEMPORARIES))
            self._segment.moved_bytes += 2 * num_bytes  # written and read again
        is_new = False
        for tensor in _tensors(result):
            is_new |= self._meet(tensor)
        if kwargs.get("pin_memory"):
            self.label(_tensors(result), HOST)
        elif func is _COPY:
            self._count_copy(*args)
        elif func.namespace == "c10d":
            self.label(_tensors(args), COLLECTIVES)
        if is_new or func._schema.is_mutable:
            self._count(func, args, kwargs, result)
        return result

    def _meet(self, tensor: torch.Tensor) -> bool:
        """Record a tensor's storage; False when it is known."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._numbers or address in self._watched:
            return False
        born = _TEMPORARIES
        if self.phase == "backward" and torch.is_grad_enabled():
            born = _ACTIVATIONS  # a checkpointed layer runs forward again, under autograd
        number = self._allocate(storage.nbytes(), born)
        self._numbers[address] = number
        self._references[address] = weakref.ref(storage, lambda _: self._forget(address))
        return True

    def _look_again(self) -> None:
        """Record what storages that are resized in place hold now."""
        for watched in self._watched.values():
            num_bytes = watched.storage.nbytes()
            if num_bytes == watched.num_bytes:
                continue
            if watched.num_bytes:
                self._free(watched.number)
            if num_bytes:
                watched.number = self._allocate(num_bytes, _TEMPORARIES)
                self._labels[watched.number] = watched.term
            watched.num_bytes = num_bytes

    def _forget(self, address: int) -> None:
        self._references.pop(address, None)
        number = self._numbers.pop(address, None)
        if number is not None:
            self._free(number)

    def _allocate(self, num_bytes: int, born: str) -> int:
        self._settle()
        number = len(self._born)
        self._born.append(born)
        self._birth_places.append(self._segment)
        self.trace.num_bytes.append(num_bytes)
        self._segment.events.append(number + 1)
        return number

    def _free(self, number: int) -> None:
        if self._is_finished:
            return
        self._death_phases[number] = self.phase
        is_outside = self._segment.layer is None and not self._frees_once
        if is_outside and self._birth_places[number].layer is not None:
            self._owed.append(number)
        else:
            self._segment.events.append(-(number + 1))

    def _settle(self) -> None:
        """Record what layers owe in segments of theirs, in the order in which it was allocated.

        Autocast's cache of cast weights, for one, goes all at once and in no order; a layer that
        stands for others must free what they would.
        """
        owed, self._owed = sorted(self._owed), []
        if not owed:
            return
        phase, layer = self._segment.phase, self._segment.layer
        for number in owed:
            self._begin(phase, self._birth_places[number].layer)
            self._segment.events.append(-(number + 1))
        self._begin(phase, layer)

    def _begin(self, phase: str, layer: tuple[str, int] | None) -> None:
        self._segment = Segment(phase, layer)
        self.trace.segments.append(self._segment)

    def _term(self, number: int) -> str:
        """Tell what an allocation was from when it came and went."""
        born_in, died_in = self._birth_places[number].phase, self._death_phases.get(number)
        if born_in == "loss":
            return _LOSS
        if born_in == "forward" and died_in != "forward":
            return _ACTIVATIONS
        return self._born[number]

    def _count_copy(self, to: torch.Tensor, source: torch.Tensor, *_: Any) -> None:
        """Count a copy between the device and the host's pinned memory."""
        if self._lies_on_host(to) != self._lies_on_host(source):
            self._segment.copied_bytes += _extent(to)

    def _lies_on_host(self, tensor: torch.Tensor) -> bool:
        number = self._numbers.get(tensor.untyped_storage()._cdata, -1)
        return self._labels.get(number) == HOST

    def _count(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        segment = self._segment
        segment.num_operators += 1
        flops = FLOPS.get(func) or flop_registry.get(func._overloadpacket)
        if flops is not None:
            num_flops = int(flops(*args, **kwargs, out_val=result))
            segment.num_flops += num_flops
            if "attention" in func._schema.name:
                segment.attention_flops += num_flops
        segment.moved_bytes += sum(map(_extent, _tensors(args))) + sum(
            map(_extent, _tensors(result))
        )


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """Give the tensors of an operator's arguments or results, lists of tensors included."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            if isinstance(value, torch.Tensor):
                yield value
            elif isinstance(value, list | tuple):
                yield from _tensors(value)


def _all_parts(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    for tensor in tensors:
        yield from parts_of(tensor)


def _extent(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())


def _attention_flops(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Return the two products of attention, causal or not: half of them may be masked."""
    batch, heads, length, width = (int(size) for size in query.shape)
    return 4 * batch * heads * length * int(key.shape[-2]) * width


def _attention_backward_flops(_grad: Any, query: Any, key: Any, *_: Any, **__: Any) -> int:
    return _attention_flops(query, key) * 5 // 2


def _operators(pairs: Mapping[str, Callable[..., int]]) -> dict[Any, Callable[..., int]]:
    """Look operators up by name, leaving out those that this installation does not have."""
    found = {}
    for name, function in pairs.items():
        namespace, _, operator = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operator, None)
        if packet is not None:
            found[packet.default] = function
    return found


WORKSPACES: dict[Any, Callable[..., int]] = {}
"""Operator -> bytes that it allocates and frees within itself."""
FLOPS: dict[Any, Callable[..., int]] = {}
"""Operator -> floating-point operations, where torch's own registry has none."""


def register_operators(storage: Storage) -> None:
    """Fill `WORKSPACES` and `FLOPS`, with what a quantization's own operators do."""
    own = storage.operators
    WORKSPACES.update(_operators({name: operator.workspace for name, operator in own.items()}))
    flash = "aten::_scaled_dot_product_flash_attention_for_cpu"
    FLOPS.update(
        _operators(
            {
                **{name: operator.flops for name, operator in own.items()},
                flash: _attention_flops,
                f"{flash}_backward": _attention_backward_flops,
            }
        )
    )
