"""Merge an adapter, or a run, into its base: the verb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peftkit.errors import UsageError
from peftkit.merge.result import MergeResult, Onto


def merge(
    source: Path,
    *,
    out: Path,
    base: str | None = None,
    onto: Onto | None = None,
    verify: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> MergeResult:
    """Write base + adapter as one model that plain transformers loads.

    Args:
        source: a run directory, an adapter folder, or a whole model's folder.
        out: a new or empty folder, or what an interrupted merge of the same inputs left, which
            is then continued.
        base: a folder, a Hub id, `ID@REVISION` or `embedded:NAME`; the one the run or the adapter
            names when None.
        onto: which weights of a quantized base take the change; must be said for a base that is
            or was quantized, and only then.
        verify: whether to load what was written and compare its logits with base + adapter; for
            models of up to 1 GiB when None.
        progress: called with a line now and then.

    Raises:
        ArtefactError: adapter and base do not belong together, a file is broken or pickled, the
            method cannot be merged, or the verification failed.
        ResourceError: the disk has not enough room; known before the first byte.
        UsageError: `out` holds something else, or `onto` must be said.
    """
    raise UsageError(f"{source}: merging into {out} is being built", hint=f"{base, onto, verify}")
