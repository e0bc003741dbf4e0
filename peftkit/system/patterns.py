"""Patterns of names from a recipe or an adapter: regular expressions that may never end.

Python's engine tries every way to match, and cannot be stopped. So one that repeats what repeats is
tried first on names as models have them, in a process that can be.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache
from typing import Any

from peftkit.errors import ArtefactError

_SECONDS = 3.0
"""For patterns of a dozen characters a name takes microseconds."""
_LONGEST = 10_000
_NAMES = (
    "model.layers.10.self_attn.q_proj",
    "base_model.model.model.language_model.layers.31.mlp.experts.127.down_proj.weight",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
)
_TRIAL = "import re, sys; p = re.compile(sys.argv[1]); [p.fullmatch(n) for n in sys.argv[2:]]"
_REPEATS = ("max_repeat", "min_repeat")


def check_pattern(pattern: str, where: str) -> None:
    """Refuse a pattern that is none, or takes without end on the names of a model.

    Args:
        where: the pattern stands, as an error says it.

    Raises:
        ArtefactError: shows the pattern.
    """
    problem = _find_problem(pattern)
    if problem:
        raise ArtefactError(
            f"{where}: {pattern!r:.80} {problem}",
            hint="write a list of names, or a pattern without repeats inside of repeats",
        )


@lru_cache(maxsize=200)
def _find_problem(pattern: str) -> str | None:
    if len(pattern) > _LONGEST:
        return f"is {len(pattern):,} characters long"
    try:
        re.compile(pattern)
        nested = _is_nested(re._parser.parse(pattern), False)  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression: {error}"
    if not nested:
        return None
    command = [sys.executable, "-I", "-S", "-c", _TRIAL, pattern, *_NAMES]
    try:
        subprocess.run(  # noqa: S603 - Python itself; the pattern is an argument, and no code
            command, timeout=_SECONDS, check=False, capture_output=True
        )
    except subprocess.TimeoutExpired:
        return f"was tried on a model's names for {_SECONDS:g} seconds without an end"
    return None


def _is_nested(parsed: Any, is_inside: bool) -> bool:
    """Tell whether a pattern repeats something that itself can be of many lengths."""
    for operator, argument in parsed:
        repeats = str(operator).lower() in _REPEATS
        if repeats and (is_inside or _is_nested(argument[2], True)):
            return True
        if not repeats and any(_is_nested(part, is_inside) for part in _parts(argument)):
            return True
    return False


def _parts(argument: Any) -> list[Any]:
    """Return the patterns within a group, a branch or a lookaround."""
    if isinstance(argument, re._parser.SubPattern):  # type: ignore[attr-defined]
        return [argument]
    if isinstance(argument, tuple | list):
        return [found for one in argument for found in _parts(one)]
    return []
