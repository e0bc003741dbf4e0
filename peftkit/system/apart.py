"""Call a function in a process of its own, which no launcher started."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Params = ParamSpec("Params")
Value = TypeVar("Value")

_OF_LAUNCHERS = (
    "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "ACCELERATE_", "FSDP_",
    "TORCHELASTIC_",
)  # fmt: skip
"""How the variables begin by which launchers tell a process of its group and engine."""


def apart(do: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs) -> Value:
    """Return what a function returns that needs a process which belongs to no group.

    Args:
        do: a function of a module, which is given and returns what can be pickled; what it raises
            is raised here.

    Raises:
        BrokenProcessPool: the process was ended from outside.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    spawn = get_context("spawn")  # a fork would hold what this process has of its group
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_leave_group) as pool:
        return pool.submit(do, *args, **kwargs).result()


def _leave_group() -> None:
    for name in [name for name in os.environ if name.startswith(_OF_LAUNCHERS)]:
        del os.environ[name]
