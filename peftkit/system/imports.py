"""How the stack is imported: without collecting garbage, and without a compiler not asked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

UNCOMPILED = "TORCHDYNAMO_DISABLE"
"""torch's own variable: what `torch.compile` is given while it is 1 stays as it is."""


@contextmanager
def importing() -> Iterator[None]:
    """Import inside without the garbage collector, which walks modules that stay: 1 s of 8."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def leave_imports_uncollected() -> None:
    """Keep the garbage collector off the stack's modules, once: it walks them for 2 s of 12.

    Only once, since what is frozen is never collected, a former plan's models included.
    """
    gc.freeze()


@cache
def import_uncompiled() -> None:
    """Import bitsandbytes, which PEFT does as well, without torch's inductor: 1.5 s of 8.

    It compiles kernels on import for devices that have none of its own. CPUs and CUDA have theirs;
    where those cannot be loaded, the others compute as they are written.

    Source: bitsandbytes 0.50.2, `backends/default/ops.py`; torch 2.13, `_dynamo/eval_frame.py`.
    """
    import torch

    if UNCOMPILED in os.environ or torch.xpu.is_available() or torch.backends.mps.is_available():
        return
    os.environ[UNCOMPILED] = "1"
    try:
        with suppress(Exception):  # said by whoever needs it
            import bitsandbytes  # noqa: F401
    finally:
        del os.environ[UNCOMPILED]
