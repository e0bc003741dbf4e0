"""From a base tensor back to the module of the model that an adapter names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.merging.adapter import OpenedAdapter, is_transposed
from peftkit.system.checkpoint_files import PEFT_PREFIX

_EMBEDDING = ".lora_embedding_A"


@dataclass(frozen=True)
class Module:
    """Name a layer of the model, and say how its weight is stored."""

    name: str
    """Path in the model, e.g. `model.layers.0.self_attn.q_proj`."""
    is_embedding: bool
    is_transposed: bool
    """Whether the weight is stored as (in, out): an embedding's, or transformers' Conv1D's."""


def find_module(
    target: str, adapters: Sequence[OpenedAdapter], model_config: Mapping[str, Any]
) -> Module:
    """Find the module of a base tensor `...weight` in the keys of adapters that change it.

    Raises:
        ArtefactError: no key says how the model calls it.
    """
    name = module_name(target, (key for a in adapters for key in a.tensors))
    if name is None:
        raise ArtefactError(
            f"the adapters do not say which module of the model {target} belongs to",
            hint="merge them into the base, without --to adapter",
        )
    keys = {
        key: adapter
        for adapter in adapters
        for key in adapter.tensors
        if key.startswith(f"{PEFT_PREFIX}{name}.")
    }
    is_embedding = any(key.endswith(_EMBEDDING) for key in keys)
    weight = adapters[0].base.tensors.get(target)
    stored = False
    if weight is not None and not is_embedding:
        config = next((a.config for a in keys.values()), adapters[0].config)
        parameters = {
            key.removeprefix(f"{PEFT_PREFIX}{name}."): a.tensors[key]
            for key, a in keys.items()
            if a.config is config
        }
        stored = is_transposed(name, weight, parameters, config, model_config)
    return Module(name, is_embedding, is_embedding or stored)


def module_name(target: str, keys: Iterable[str]) -> str | None:
    """Return how an adapter's keys call the module of a base tensor.

    One prefix may be missing on either side: `Names` says when.
    """
    own = target.rpartition(".")[0]
    inner = {key.removeprefix(PEFT_PREFIX) for key in keys}
    firsts = {key.partition(".")[0] for key in inner}
    candidates = (own, *(f"{first}.{own}" for first in sorted(firsts)), own.partition(".")[2])
    return next(
        (name for name in candidates if name and any(k.startswith(f"{name}.") for k in inner)), None
    )


def shortest_targets(modules: Iterable[str], base_tensors: Iterable[str]) -> list[str]:
    """Write modules as PEFT's `target_modules` does: by the last name where that means these alone.

    Args:
        base_tensors: names of all of the base's tensors.
    """
    mine: dict[str, list[str]] = {}
    for module in modules:
        mine.setdefault(module.rpartition(".")[2], []).append(module)
    num_in_base: dict[str, int] = {}
    for tensor in base_tensors:
        if tensor.endswith(".weight"):
            last = tensor.removesuffix(".weight").rpartition(".")[2]
            num_in_base[last] = num_in_base.get(last, 0) + 1
    targets: list[str] = []
    for last, names in mine.items():
        targets += [last] if num_in_base.get(last) == len(names) else names
    return sorted(targets)
