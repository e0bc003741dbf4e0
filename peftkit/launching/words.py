"""The words of `peftkit run`: taken apart, and put together again for another process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command line's KEY=VALUE words from what stood behind `--`.

    A key begins with a letter and an option with a dash, so that the first dash is the border.
    """
    border = next((at for at, word in enumerate(words) if word.startswith("-")), len(words))
    return list(words[:border]), list(words[border:])


def run_options(
    out: Path | None, *, dry_run: bool = False, allow_drift: bool = False
) -> tuple[str, ...]:
    """Return the options of `peftkit run` that say this."""
    return (
        *(() if out is None else ("--out", str(out))),
        *(("--dry-run",) if dry_run else ()),
        *(("--allow-drift",) if allow_drift else ()),
    )
