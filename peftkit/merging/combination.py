"""Several opened adapters as one: what their combination does to each base tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.merging.adapter import OpenedAdapter
from peftkit.merging.changes import Change, LowRank, Matrix, Rows
from peftkit.merging.factors import distance, norm, weighted_low_rank
from peftkit.merging.folder import text_config
from peftkit.merging.formulas.low_rank import is_more_than_factors
from peftkit.merging.modules import Module, find_module
from peftkit.merging.plan import same_bytes
from peftkit.merging.rounding import STORAGE, from_float64, to_float64
from peftkit.merging.weights_io import Tensor
from peftkit.plugins import Merge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F64 = NDArray[np.float64]

_TIES = ("ensure_weight_tying", "trainable_token_indices", "token_indices")
"""Options by which training an embedding trains what is tied to it."""


@dataclass(frozen=True)
class _Delta:
    """Hold one adapter's change of one base tensor, with everything read that it takes."""

    functions: tuple[Rows, ...]
    saved: Matrix | None
    """What takes the base's place before the functions."""

    @property
    def low_rank(self) -> LowRank | None:
        """Return the change as a product of two factors, if it is one."""
        only = self.functions[0] if len(self.functions) == 1 and self.saved is None else None
        return only if isinstance(only, LowRank) else None

    def rows(self, base: F64, start: int) -> F64:
        """Return (merged - base) of some rows."""
        rows = base if self.saved is None else self.saved.rows(start, start + len(base))
        for function in self.functions:
            rows = function(rows, start)
        return rows - base


def without_copies(adapter: OpenedAdapter) -> OpenedAdapter:
    """Forget weights of the base that an adapter's file merely repeats.

    PEFT saves an embedding whole when a LoRA targets it; in the dtype of training.
    """
    kept = {
        name: tensor
        for name, tensor in adapter.replaced.items()
        if name not in adapter.base.tensors or not _is_copy(tensor, adapter.base.tensors[name])
    }
    copies = {t.name for name, t in adapter.replaced.items() if name not in kept}
    tensors = {key: tensor for key, tensor in adapter.tensors.items() if key not in copies}
    return replace(adapter, replaced=kept, tensors=tensors)


def _is_copy(saved: Tensor, base: Tensor) -> bool:
    """Tell whether a tensor is the base's, rounded to its own dtype."""
    if saved.shape != base.shape or saved.dtype not in STORAGE:
        return False
    own = Matrix(saved)
    return all(
        bool((to_float64(from_float64(rows, saved.dtype), saved.dtype)
              == own.rows(start, start + len(rows))).all())
        for start, rows in Matrix(base).tiles()
    )  # fmt: skip


def combine_opened(
    adapters: Sequence[OpenedAdapter], merge: Merge, model_config: Mapping[str, Any]
) -> OpenedAdapter:
    """Return the combination as if it were one adapter.

    Its tensors' names begin with the number of the adapter that has them: `0:base_model...`.

    Raises:
        ArtefactError: two adapters cannot be combined in one tensor; names it.
        UsageError: this merge combines factors, and an adapter has none, or of another rank.
    """
    targets = dict.fromkeys(name for adapter in adapters for name in adapter.targets)
    if merge.combines == "factors":
        for adapter in adapters:
            _check_factors(adapter, merge)
    changes: dict[str, tuple[Change, ...]] = {}
    replaced: dict[str, Tensor] = {}
    for name in targets:
        parts = [(i, a) for i, a in enumerate(adapters) if name in a.targets]
        new = _new_tensor(name, parts)
        if new is not None:
            replaced[name] = new
            index, adapter = parts[0]
            changes[name] = tuple(
                replace(change, uses=_numbered(index, change.uses))
                for change in adapter.changes.get(name, ())
            )
        else:
            changes[name] = (_combined_change(name, parts, merge, model_config),)
    return OpenedAdapter(
        Path(" + ".join(str(adapter.folder) for adapter in adapters)),
        _combined_config(adapters, model_config),
        {f"{i}:{key}": tensor for i, a in enumerate(adapters) for key, tensor in a.tensors.items()},
        adapters[0].base,
        {name: some for name, some in changes.items() if some},
        replaced,
    )


def _new_tensor(name: str, parts: Sequence[tuple[int, OpenedAdapter]]) -> Tensor | None:
    """Return an adapter's tensor that has no counterpart in the base, so that no delta exists.

    Raises:
        ArtefactError: several adapters bring different ones.
    """
    index, first = parts[0]
    old = first.base.tensors.get(name)
    brought = [(i, a.replaced[name]) for i, a in parts if name in a.replaced]
    if not brought or (old is not None and all(t.shape == old.shape for _, t in brought)):
        return None
    if len(parts) > 1 and not (
        len(brought) == len(parts)
        and not any(name in a.changes for _, a in parts)
        and all(same_bytes(brought[0][1], tensor) for _, tensor in brought[1:])
    ):
        folders = " and ".join(str(adapter.folder) for _, adapter in parts)
        raise ArtefactError(
            f"{folders} each bring a {name} of their own, which the base does not have in this"
            " shape, so there is nothing to measure a change from",
            hint="combine adapters of which at most one has its own head or a resized vocabulary",
        )
    tensor = first.replaced[name]
    return replace(tensor, name=f"{index}:{tensor.name}")


def _combined_change(
    name: str,
    parts: Sequence[tuple[int, OpenedAdapter]],
    merge: Merge,
    model_config: Mapping[str, Any],
) -> Change:
    """Return the combination's change of one base tensor."""
    layouts = {change.is_stack for _, a in parts for change in a.changes.get(name, ())}
    if len(layouts) > 1:
        raise ArtefactError(
            f"one adapter changes {name} expert by expert and another as a whole, so they cannot"
            " be combined"
        )
    adapters = [adapter for _, adapter in parts]
    weights = [merge.weights[index] for index, _ in parts]
    is_stack = True in layouts
    module = None
    if merge.combines == "factors" and all(_has_factors(a, name) for a in adapters):
        module = find_module(name, adapters, model_config)
        _check_ranks(name, adapters, merge)
    elif merge.combines == "factors" and any(_has_factors(a, name) for a in adapters):
        raise UsageError(
            f"{name} is trained by factors in one adapter and whole in another, and this merge"
            " combines factors",
            hint=_by_deltas(merge),
        )

    def load(base: Matrix) -> Rows:
        deltas = [_load(adapter, name, base, is_stack=is_stack) for adapter in adapters]
        low_rank = [delta.low_rank for delta in deltas]
        products = [part for part in low_rank if part is not None]
        if module is not None:
            return combined_factors(products, weights, merge, module)
        if merge.is_linear and len(products) == len(deltas):
            return weighted_low_rank(products, weights)
        if merge.is_linear:
            return lambda rows, start: (
                rows + merge.combine([d.rows(rows, start) for d in deltas], weights, name)
            )
        whole = merge.combine([_whole(delta, base) for delta in deltas], weights, name)
        return lambda rows, start: rows + whole[start : start + len(rows)]

    uses = tuple(key for index, a in parts for key in _numbered(index, _uses(a, name)))
    return Change(uses, load, is_stack)


def combined_factors(
    parts: Sequence[LowRank], weights: Sequence[float], merge: Merge, module: Module
) -> LowRank:
    """Combine As and Bs apart, each with the root of weight times scale, as peft does.

    A negative weight's sign goes to A alone: on both it would cancel.
    """
    import numpy as np

    scaled = [weight * part.scale for part, weight in zip(parts, weights, strict=True)]
    roots = [float(np.sqrt(abs(value))) for value in scaled]
    signed = [float(np.copysign(root, value)) for root, value in zip(roots, scaled, strict=True)]
    first, second = (
        ([part.left for part in parts], [part.right for part in parts])
        if module.is_transposed
        else ([part.right for part in parts], [part.left for part in parts])
    )
    a = merge.combine(first, signed, f"{module.name}.lora_A")
    b = merge.combine(second, roots, f"{module.name}.lora_B")
    return LowRank(a, b, 1.0) if module.is_transposed else LowRank(b, a, 1.0)


def deviation(
    adapters: Sequence[OpenedAdapter], merge: Merge, model_config: Mapping[str, Any]
) -> float | None:
    """Measure how far a merge of factors is from the weighted sum of the changes.

    Returns:
        The norm of the difference over the norm of that sum, both over all weights that have
        factors; None for a merge of changes.
    """
    if merge.combines != "factors":
        return None
    error = size = 0.0
    for name in dict.fromkeys(name for adapter in adapters for name in adapter.changes):
        parts = [(a, w) for a, w in zip(adapters, merge.weights, strict=True) if name in a.changes]
        some, weights = [adapter for adapter, _ in parts], [weight for _, weight in parts]
        if not all(_has_factors(adapter, name) for adapter in some):
            continue
        base = Matrix(some[0].base.tensors.get(name) or next(iter(some[0].base.tensors.values())))
        products = [
            product
            for adapter in some
            if (product := _load(adapter, name, base, is_stack=False).low_rank) is not None
        ]
        module = find_module(name, some, model_config)
        total = weighted_low_rank(products, weights)
        made = combined_factors(products, weights, merge, module)
        error += distance(total, made) ** 2
        size += norm(total) ** 2
    return math.sqrt(error / size) if size else None


def kind_of(adapter: OpenedAdapter) -> str:
    """Say what an adapter is; `LORA` for one that is its two factors and nothing else."""
    config = adapter.config
    if adapter.method != "LORA":
        return adapter.method
    if config.get("use_dora"):
        return "a DoRA"
    if is_more_than_factors(config):
        return "a LoRA that is more than its factors"
    return "a LoRA on bare parameters" if config.get("target_parameters") else "LORA"


def _check_factors(adapter: OpenedAdapter, merge: Merge) -> None:
    """Refuse an adapter that is more than LoRA's two factors."""
    if kind_of(adapter) != "LORA":
        raise UsageError(
            f"{adapter.folder} is {kind_of(adapter)}, and this merge combines LoRA's factors A and"
            " B",
            hint=_by_deltas(merge),
        )


def _check_ranks(name: str, adapters: Sequence[OpenedAdapter], merge: Merge) -> None:
    ranks = {str(a.folder): rank_of(a, name) for a in adapters}
    if len(set(ranks.values())) > 1:
        listed = ", ".join(f"{rank} in {folder}" for folder, rank in ranks.items())
        raise UsageError(
            f"{name} has rank {listed}, and this merge combines factors number by number",
            hint=_by_deltas(merge),
        )


def _by_deltas(merge: Merge) -> str:
    instead = "svd or cat" if merge.is_linear else "the one whose name ends in _svd"
    return f"combine the changes of weights themselves: {instead}, with the same weights"


def rank_of(adapter: OpenedAdapter, name: str) -> int | None:
    """Return the rank of an adapter's change of a tensor; None where it is no product."""
    if kind_of(adapter) not in ("LORA", "VERA", "a LoRA on bare parameters"):
        return None
    for key in _uses(adapter, name):
        if key.endswith((".lora_A.weight", ".lora_embedding_A", ".vera_lambda_d")):
            return adapter.tensors[key].shape[0]
    return None


def _has_factors(adapter: OpenedAdapter, name: str) -> bool:
    return name not in adapter.replaced and rank_of(adapter, name) is not None


def _uses(adapter: OpenedAdapter, name: str) -> tuple[str, ...]:
    used = tuple(key for change in adapter.changes.get(name, ()) for key in change.uses)
    saved = adapter.replaced.get(name)
    return used if saved is None else (*used, saved.name)


def _numbered(index: int, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{index}:{key}" for key in keys)


def _load(adapter: OpenedAdapter, name: str, base: Matrix, *, is_stack: bool) -> _Delta:
    tensor = adapter.replaced.get(name)
    if tensor is not None and is_stack:
        tensor = tensor.as_stack()
    saved = None if tensor is None else Matrix(tensor)
    functions = tuple(change.load(saved or base) for change in adapter.changes.get(name, ()))
    return _Delta(functions, saved)


def _whole(delta: _Delta, base: Matrix) -> F64:
    """Return the delta of a whole tensor."""
    import numpy as np

    whole = np.empty(base.shape)
    for start, rows in base.tiles():
        whole[start : start + len(rows)] = delta.rows(rows, start)
    return whole


def _combined_config(
    adapters: Sequence[OpenedAdapter], model_config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what planning reads of a config, where the adapters agree.

    Raises:
        ArtefactError: they do not agree on what cannot be mixed.
    """
    tasks = {adapter.config.get("task_type") for adapter in adapters}
    if len(tasks) > 1:
        listed = ", ".join(f"{a.config.get('task_type')} in {a.folder}" for a in adapters)
        raise ArtefactError(
            f"the adapters were trained for different tasks: {listed}",
            hint="combine adapters of one task",
        )
    keeps_tie = {
        str(adapter.folder): any(adapter.config.get(key) for key in _TIES)
        for adapter in adapters
        if changes_tied(adapter, model_config)
    }
    if len(set(keeps_tie.values())) > 1:
        keeping = ", ".join(folder for folder, keeps in keeps_tie.items() if keeps)
        raise ArtefactError(
            f"{keeping} changes the embedding and the head tied to it together, and another adapter"
            " changes one of them alone",
            hint="combine adapters that treat the tied weights alike",
        )
    return {
        "peft_type": "COMBINATION",
        "task_type": tasks.pop(),
        "auto_mapping": adapters[0].config.get("auto_mapping"),
        "ensure_weight_tying": True in keeps_tie.values(),
    }


def changes_tied(adapter: OpenedAdapter, model_config: Mapping[str, Any]) -> bool:
    """Tell whether an adapter changes an embedding or a head that are one weight in the base."""
    text = text_config(model_config)
    tensors = adapter.base.tensors
    is_tied = text.get("tie_word_embeddings", model_config.get("tie_word_embeddings", True))
    return bool(is_tied) and any(
        name not in tensors or text.get("vocab_size") in tensors[name].shape[:1]
        for name in adapter.targets
    )
