"""Run one step of a model under the tracker, fake or real, with every phase marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.memory import step
from peftkit.memory.layers import Stack, mark_layers
from peftkit.plugins.native import native_model
from peftkit.plugins.quantizer import PLAIN, Storage

if TYPE_CHECKING:
    import torch

    from peftkit.memory.step import StepSettings
    from peftkit.memory.trace import Trace
    from peftkit.memory.tracker import Tracker
    from peftkit.plugins.losses import Loss


@dataclass(frozen=True)
class Kept:
    """Say which layers of a stack are in the model that runs."""

    stack: Stack
    indices: tuple[int, ...]


class Marks:
    """Tell a tracker where phases and layers begin."""

    def __init__(self, model: Any, tracker: Tracker, kept: Sequence[Kept] = ()) -> None:
        self._tracker = tracker
        self._has_head = False
        self._handles: list[Any] = []
        for one in kept:
            self._handles += mark_layers(model, one.stack, one.indices, tracker)
        body = _body(model)
        if body is not None:
            self._handles.append(body.register_forward_pre_hook(self._enter_body))
            self._handles.append(body.register_forward_hook(self._enter_head))

    def enter(self, phase: str) -> None:
        """Enter a phase; the backward begins with the head's, which is still `loss`."""
        is_head = phase == "backward" and self._has_head
        self._has_head = False
        self._tracker.enter("loss" if is_head else phase)

    def remove(self) -> None:
        """Take every hook off the model."""
        for handle in self._handles:
            handle.remove()

    def _enter_body(self, _module: Any, _args: Any) -> None:
        if self._tracker.phase == "loss":  # of a reference, which is a second forward
            self._tracker.enter("forward")

    def _enter_head(self, _module: Any, _args: Any, output: Any) -> None:
        if self._tracker.phase != "forward":
            return
        self._tracker.enter("loss")
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is not None and hidden.requires_grad:
            self._has_head = True
            hidden.register_hook(lambda _: self._tracker.enter("backward"))


def track_micro_batch(  # noqa: PLR0913 - the parts of a step, and where its layers are
    model: Any,
    make_batch: Callable[[], Mapping[str, Any]],
    loss_of: Loss,
    settings: StepSettings,
    *,
    kept: Sequence[Kept] = (),
    saving: Callable[[Tracker], AbstractContextManager[Any]] = nullcontext,
    storage: Storage = PLAIN,
) -> Trace:
    """Follow forward, loss and backward of one micro-batch; what was alive before is `load`.

    The trained parameters' gradients of earlier micro-batches, where there are, count as alive.

    Args:
        saving: from the tracker to what saved tensors go through.
        storage: how the base's weights are packed.
    """
    from peftkit.memory.tracker import Tracker

    tracker = Tracker(storage)
    hold_model(tracker, model)
    trained = [p for p in model.parameters() if p.requires_grad]
    tracker.hold((p.grad for p in trained if p.grad is not None), "gradients")
    marks = Marks(model, tracker, kept)
    try:
        with tracker, saving(tracker):
            tracker.enter("forward")
            batch = make_batch()
            loss = step.forward_backward(model, batch, loss_of, settings, marks.enter)
            tracker.label((p.grad for p in trained if p.grad is not None), "gradients")
            trace = tracker.finish()
            del batch, loss
    finally:
        marks.remove()
    return trace


def track_update(
    parameters: Sequence[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    settings: StepSettings,
    *,
    device: str = "cpu",
) -> Trace:
    """Follow clipping, the optimizer's step and the end of the gradients, states made before.

    Args:
        device: the planned one, which may page states that lie in memory here.
    """
    from peftkit.memory.tracker import Tracker

    tracker = Tracker()
    tracker.hold(parameters, "base")
    tracker.hold((p.grad for p in parameters if p.grad is not None), "gradients")
    tracker.hold(state_tensors(optimizer, device=device), "optimizer")
    with tracker:
        step.update(parameters, optimizer, settings, tracker.enter)
        return tracker.finish()


def hold_model(tracker: Tracker, model: Any) -> None:
    """Count a model's tensors, quantized storage included, as alive."""
    tracker.hold(model.parameters(), "base")
    tracker.hold(model.buffers(), "base")
    for module in model.modules():
        tracker.hold(tracker.storage.side_tensors(module), "base")
    tracker.hold(loose_tensors(model), "base")


def loose_tensors(model: Any) -> Iterator[torch.Tensor]:
    """Give tensors that modules hold without having registered them, as peft's FourierFT does."""
    import torch

    for module in model.modules():
        for value in vars(module).values():
            held = value.values() if type(value) is dict else (value,)
            yield from (tensor for tensor in held if isinstance(tensor, torch.Tensor))


def state_tensors(
    optimizer: torch.optim.Optimizer, *, device: str = "cpu"
) -> Iterable[torch.Tensor]:
    """Give every tensor of an optimizer's state that takes memory of the device, once.

    bitsandbytes' paged optimizers keep the moments of large parameters in CUDA's managed memory:
    on the host, and on the device only while there is room for them. On a CPU nothing is paged.
    Source: bitsandbytes 0.50.2, `optim/optimizer.py`, `get_state_buffer`.
    """
    import torch

    pages = device == "cuda" and getattr(optimizer, "is_paged", False)
    for parameter, state in optimizer.state.items():
        is_paged = pages and parameter.numel() >= _SMALLEST_PAGED
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and not (is_paged and name in _PAGED):
                yield value


_PAGED = ("state1", "state2")
_SMALLEST_PAGED = 100_000
"""Elements of a parameter from which on bitsandbytes pages its moments."""


def _body(model: Any) -> Any:
    """Return the module whose output the head takes: the backbone, inside any adapter."""
    base = native_model(model)
    if getattr(base.config, "is_encoder_decoder", False):
        return base.get_decoder()
    body = getattr(base, "base_model", None)
    return body if body is not None and body is not base else None
