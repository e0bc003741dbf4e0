"""Which of a run's processes this is, and how all of them stay one run.

A launcher (torchrun, accelerate) starts a run in several processes, and all of them go the same
straight line. The main one alone owns the run directory and the screen; what makes one of them
leave the line makes all of them leave it, at the same place.

Every method here is a meeting: all processes come to it, in the same order, or those that came wait
for the others. So what one of them does by itself, inside `by_main` or `together`, never meets.
What fails within a training step reaches no meeting: the others wait in the step's own exchange of
gradients until the launcher ends them. The run directory lies on a disk that all of them see.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

Params = ParamSpec("Params")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Process:
    """Say which of a run's processes this is; the one that no launcher started is alone."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Its number among those of its host, which is also that of its device."""

    @property
    def is_main(self) -> bool:
        """Tell whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Tell whether there are no others."""
        return self.world_size == 1

    def gather(self, value: Value) -> list[Value]:
        """Give every process the values of all, by rank."""
        if self.is_alone:
            return [value]
        found: list[Any] = [None] * self.world_size
        _group().all_gather_object(found, value)
        return found

    def agree(self, value: Value) -> Value:
        """Give every process the main one's value."""
        if self.is_alone:
            return value
        box = [value]
        _group().broadcast_object_list(box, src=0)
        return box[0]

    def most(self, number: int) -> int:
        """Give every process the largest number of any: one exchange, cheap enough for a step."""
        if self.is_alone:
            return number
        group = _group()
        import torch

        # gloo alone exchanges what lies on the host; others what lies on this process's device.
        is_on_device = torch.accelerator.is_available() and "gloo" not in group.get_backend()
        device = torch.accelerator.current_accelerator() if is_on_device else None
        box = torch.tensor(number, dtype=torch.int64, device=device)
        group.all_reduce(box, op=group.ReduceOp.MAX)
        return int(box)

    def any_of(self, flag: bool) -> bool:
        """Tell every process whether the flag is up in one of them."""
        return self.most(int(flag)) > 0

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.gather(None)

    def by_main(
        self, do: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs
    ) -> Value:
        """Call a function in the main process alone; every process gets its result or its error."""
        if self.is_alone:
            return do(*args, **kwargs)
        result: Any = None
        with self.together():
            if self.is_main:
                result = do(*args, **kwargs)
        return self.agree(result)  # type: ignore[no-any-return]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave with an error where one process has one: its own, or that of the first that has."""
        if self.is_alone:
            yield
            return
        own: Exception | None = None
        try:
            yield
        except Exception as error:
            own = error
        raised = [error for error in self.gather(_portable(own)) if error is not None]
        if own is not None:
            raise own
        if raised:
            raise raised[0]


ALONE = Process()
"""The one process of a run that no launcher started."""


def this_process() -> Process:
    """Tell which process this is: as torch's group says, or the launcher's standard variables."""
    distributed = sys.modules.get("torch.distributed")
    local_rank = _stated("LOCAL_RANK", 0)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Process(distributed.get_rank(), distributed.get_world_size(), local_rank)
    return Process(_stated("RANK", 0), _stated("WORLD_SIZE", 1), local_rank)


def _stated(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else otherwise


def _group() -> Any:
    """Return torch.distributed, joined as the launcher's variables ask unless that was done."""
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        from accelerate import PartialState

        # It also makes this process's device the current one. Without an accelerator it joins
        # nothing unless it is told that the CPU is meant.
        PartialState(cpu=not torch.accelerator.is_available())
    return distributed


def _portable(error: Exception | None) -> Exception | None:
    """Return an error that arrives in another process: itself, or what it says."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own; some can only be written
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
