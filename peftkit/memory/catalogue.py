"""The shapes of well-known models, so that they can be planned with no network and no weights."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """Hold one architecture that one or more Hub models share."""

    ids: tuple[str, ...]
    """Hub ids, base and instruct."""
    num_parameters: int
    """As published, tied weights counted once."""
    config: dict[str, Any]
    """The fields of `config.json` that decide memory and time: sizes, dtype, tying."""


def find(model_id: str) -> dict[str, Any] | None:
    """Return the `config.json` fields of a well-known Hub id; None for any other.

    What neither memory nor time depends on is left out (rotary settings, token ids), so this
    plans a model and does not load one.
    """
    found = _by_id().get(model_id.lower())
    return copy.deepcopy(found.config) if found is not None else None


@cache
def architectures() -> tuple[Architecture, ...]:
    """List every known architecture with its published number of parameters."""
    text = files(__package__).joinpath("architectures.json").read_text(encoding="utf-8")
    return tuple(
        Architecture(tuple(entry["ids"]), entry["num_parameters"], entry["config"])
        for entry in json.loads(text)["architectures"]
    )


@cache
def _by_id() -> dict[str, Architecture]:
    # The Hub takes ids in any case.
    return {name.lower(): found for found in architectures() for name in found.ids}
