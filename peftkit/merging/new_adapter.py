"""Write a combination as a new LoRA folder that plain peft loads, and measure what it loses."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, UsageError
from peftkit.merging.adapter import OpenedAdapter, open_adapter
from peftkit.merging.changes import LowRank, Matrix
from peftkit.merging.combination import kind_of, rank_of
from peftkit.merging.factors import distance, nearest, norm
from peftkit.merging.modules import Module, find_module, module_name, shortest_targets
from peftkit.merging.rounding import from_float64, to_float64
from peftkit.plugins import Merge
from peftkit.plugins.combined import Compression
from peftkit.rundir.paths import write_atomically
from peftkit.system.checkpoint_files import PEFT_PREFIX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """Measure how far the written factors are from the combined change of one module."""

    module: str
    rank: int
    error: float
    """Norm of (combined change - product of the written factors)."""
    size: float
    """Norm of the combined change."""

    @property
    def share(self) -> float:
        """Return the error over the size."""
        return self.error / self.size if self.size else 0.0


@dataclass
class _Draft:
    """Collect the tensors of the new adapter."""

    dtype: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    """Modules that are saved whole."""

    def put(self, key: str, values: F64, shape: Sequence[int]) -> F64:
        """Store a tensor, rounded once; return what was stored."""
        import numpy as np
        import torch

        stored = from_float64(values, self.dtype)
        rounded = to_float64(stored, self.dtype)
        if not np.isfinite(rounded).all():
            raise ArtefactError(
                f"{key} becomes NaN or infinite: an adapter is broken there, or the values do not"
                f" fit {self.dtype}",
                hint="use an earlier checkpoint of that training",
            )
        tensor = torch.from_numpy(np.ascontiguousarray(stored)).reshape(*shape)
        self.tensors[key] = tensor.view(torch.bfloat16) if self.dtype == "BF16" else tensor
        return rounded


def write_adapter(
    out: Path,
    combined: OpenedAdapter,
    adapters: Sequence[OpenedAdapter],
    merge: Merge,
    model_config: Mapping[str, Any],
) -> list[Loss]:
    """Write `adapter_config.json` and `adapter_model.safetensors` into an empty folder.

    Raises:
        ArtefactError: a LoRA cannot express something that the combination changes.
        UsageError: the new rank must be said, or another merge must be used.
    """
    from safetensors.torch import save_file

    refuse_inexpressible(combined, adapters)
    draft = _Draft(_widest(adapters))
    owners = {n: [a for a in adapters if n in a.targets] for n in combined.targets}
    saved = {n for n, some in owners.items() if any(n in a.replaced for a in some)}
    bounds = {n: _bound(merge, n, adapters, owners[n]) for n in owners if n not in saved}
    for name, some in owners.items():
        if name in saved:
            _save_whole(draft, combined, name, some)
        else:
            _add_factors(draft, combined, name, find_module(name, some, model_config), bounds[name])
    save_file(draft.tensors, out / "adapter_model.safetensors", {"format": "pt"})
    config = json.dumps(_config(draft, adapters), indent=2) + "\n"
    write_atomically(out / "adapter_config.json", config)
    open_adapter(out, combined.base, model_config=model_config)
    return draft.losses


def refuse_inexpressible(combined: OpenedAdapter, adapters: Sequence[OpenedAdapter]) -> None:
    """Refuse what a LoRA and saved modules cannot hold.

    Raises:
        ArtefactError: names the tensor.
    """
    hint = "merge them into the base, without --to adapter"
    for adapter in adapters:
        for key in ("trainable_token_indices", "token_indices", "ensure_weight_tying"):
            if adapter.config.get(key):
                raise ArtefactError(
                    f"{adapter.folder} has {key}, which a combined LoRA cannot keep", hint=hint
                )
    for name, changes in combined.changes.items():
        is_saved = any(name in adapter.replaced for adapter in adapters)
        base = combined.base.tensors.get(name)
        if base is None and name not in combined.replaced:
            what = "is tied to another weight"
        elif any(change.is_stack for change in changes):
            what = "is a stack of experts"
        elif not is_saved and base is not None and len(base.shape) < 2:
            what = "is no matrix"
        else:
            continue
        raise ArtefactError(f"{name} {what}, which a new LoRA cannot hold", hint=hint)


def _bound(
    merge: Merge, name: str, adapters: Sequence[OpenedAdapter], owners: Sequence[OpenedAdapter]
) -> Compression | None:
    """Return the new rank and clamp; None where every rank is kept.

    Raises:
        UsageError: it must be said, since an adapter has none.
    """
    bound = merge.compression
    unranked = next((a for a in owners if rank_of(a, name) is None), None)
    if unranked is not None and (bound is None or bound.rank is None):
        raise UsageError(
            f"{unranked.folder} is {kind_of(unranked)}, whose change of {name} has no rank to keep",
            hint="say the new one's: the method svd, or one whose name ends in _svd, with svd_rank",
        )
    if bound is None or bound.rank is not None:
        return bound
    ranks = (rank_of(adapter, target) for adapter in adapters for target in adapter.changes)
    return replace(bound, rank=max(rank for rank in ranks if rank is not None))


def _add_factors(
    draft: _Draft,
    combined: OpenedAdapter,
    name: str,
    module: Module,
    bound: Compression | None,
) -> None:
    """Factor one tensor's change and store the factors as LoRA's A and B."""
    weight = combined.source(name)
    (change,) = combined.changes[name]
    base = Matrix(weight)
    function = change.load(base)
    delta_OI: LowRank | F64  # noqa: N806
    if isinstance(function, LowRank):
        delta_OI = _turned(function) if module.is_transposed else function  # noqa: N806
    else:
        rows = base.rows(0, weight.num_rows)
        delta = function(rows, 0) - rows
        delta_OI = delta.T if module.is_transposed else delta  # noqa: N806
    if bound is not None and bound.rank is not None:
        b, a = _clamped(*nearest(delta_OI, bound.rank), bound.clamp)
    elif isinstance(delta_OI, LowRank):
        b, a = delta_OI.scale * delta_OI.left, delta_OI.right
    else:
        raise ArtefactError(f"the combined change of {name} is no product of two factors")
    r = a.shape[0]
    path = f"{PEFT_PREFIX}{module.name}"
    if module.is_embedding:
        keys, shapes = ("lora_embedding_A", "lora_embedding_B"), (a.shape, b.shape)
    else:
        ones = (1,) * (len(weight.shape) - 2)
        kernel = (a.shape[1],) if module.is_transposed else weight.shape[1:]
        keys, shapes = ("lora_A.weight", "lora_B.weight"), ((r, *kernel), (len(b), r, *ones))
    a = draft.put(f"{path}.{keys[0]}", a, shapes[0])
    b = draft.put(f"{path}.{keys[1]}", b, shapes[1])
    draft.losses.append(_loss(module.name, delta_OI, LowRank(b, a, 1.0)))


def _loss(module: str, wanted: LowRank | F64, written: LowRank) -> Loss:
    import numpy as np

    rank = written.left.shape[1]
    if isinstance(wanted, LowRank):
        return Loss(module, rank, distance(wanted, written), norm(wanted))
    error = float(np.linalg.norm(wanted - written.left @ written.right))
    return Loss(module, rank, error, float(np.linalg.norm(wanted)))


def _turned(change: LowRank) -> LowRank:
    return LowRank(change.right.T, change.left.T, change.scale)


def _clamped(b: F64, a: F64, clamp: float | None) -> tuple[F64, F64]:
    """Cut both factors off at a quantile of their numbers, as peft's `svd_clamp` does."""
    import numpy as np

    if clamp is None:
        return b, a
    high = np.quantile(np.concatenate([b.reshape(-1), a.reshape(-1)]), clamp)
    return np.clip(b, -high, high), np.clip(a, -high, high)


def _save_whole(
    draft: _Draft, combined: OpenedAdapter, name: str, owners: Sequence[OpenedAdapter]
) -> None:
    """Store a parameter as `modules_to_save` does: its combined value."""
    module = module_name(name, (key for adapter in owners for key in adapter.tensors))
    parameter = name.rpartition(".")[2]
    if module is None or any(_is_adapted(adapter, module) for adapter in owners):
        raise ArtefactError(
            f"{name} is saved whole, and its module has factors too, which one LoRA cannot hold",
            hint="merge them into the base, without --to adapter",
        )
    source = combined.source(name)
    values = Matrix(source).rows(0, source.num_rows)
    for change in combined.changes.get(name, ()):
        values = change.load(Matrix(source))(values, 0)
    draft.put(f"{PEFT_PREFIX}{module}.{parameter}", values, source.shape)
    if module not in draft.saved:
        draft.saved.append(module)


def _is_adapted(adapter: OpenedAdapter, module: str) -> bool:
    return any(key.startswith(f"{PEFT_PREFIX}{module}.lora_") for key in adapter.tensors)


def _widest(adapters: Sequence[OpenedAdapter]) -> str:
    """Return the adapters' common dtype, or float32."""
    dtypes = {t.dtype for a in adapters for t in a.tensors.values() if t.dtype != "I64"}
    only = dtypes.pop() if len(dtypes) == 1 else "F32"
    return only if only in ("F16", "BF16") else "F32"


def _config(draft: _Draft, adapters: Sequence[OpenedAdapter]) -> dict[str, Any]:
    """Return the new adapter's config; alpha equals r, so that B A is the whole change."""
    first = adapters[0]
    ranks = {loss.module: loss.rank for loss in draft.losses}
    r = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    pattern = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != r}
    named = {(a.config.get("base_model_name_or_path"), a.config.get("revision")) for a in adapters}
    base, revision = named.pop() if len(named) == 1 else (str(first.base.folder), None)
    return {
        "peft_type": "LORA",
        "task_type": first.config.get("task_type"),
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "r": r,
        "lora_alpha": r,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "target_modules": shortest_targets(ranks, first.base.tensors),
        "modules_to_save": draft.saved or None,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def relative_error(losses: Sequence[Loss]) -> float:
    """Return the error over the size, both over all modules."""
    size = math.sqrt(sum(loss.size**2 for loss in losses))
    return math.sqrt(sum(loss.error**2 for loss in losses)) / size if size else 0.0
