"""One adapter opened: its config, its tensors, and the base tensors it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapters.continued import adapter_folder
from peftkit.errors import ArtefactError
from peftkit.merging.changes import Change, Matrix
from peftkit.merging.formulas import low_rank, products, rotations, scales
from peftkit.merging.formulas.layer import Layer
from peftkit.merging.names import Names, is_conv1d
from peftkit.merging.parts import Parts, group
from peftkit.merging.weights_io import Checkpoint, Tensor, open_shard
from peftkit.system.checkpoint_files import read_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Formula = Callable[[Layer], dict[str, Change] | None]

PROMPTS = (
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING",
    "PROMPT_TUNING",
)  # fmt: skip
"""Methods that put something into the model's input or attention, not into its weights."""
FORMULAS: Mapping[str, Formula] = {
    "LORA": low_rank.lora,
    "VERA": low_rank.vera,
    "LOHA": products.loha,
    "LOKR": products.lokr,
    "IA3": scales.ia3,
    "MISS": scales.miss,
    "HRA": rotations.hra,
    "OFT": rotations.oft,
}
"""PEFT type -> the formula of one of its layers; methods without one go through peft."""


@dataclass(frozen=True)
class OpenedAdapter:
    """Hold an adapter and what it does to each tensor of a base."""

    folder: Path
    config: Mapping[str, Any]
    """`adapter_config.json` as it is: not to be believed beyond what the formulas read."""
    tensors: Mapping[str, Tensor]
    base: Checkpoint
    changes: Mapping[str, tuple[Change, ...]] = field(repr=False)
    """Base tensor -> what is done to it, in order."""
    replaced: Mapping[str, Tensor] = field(repr=False)
    """Base tensor, or new one -> the adapter's tensor that takes its place (`modules_to_save`,
    trained biases, resized embeddings); changes apply on top."""

    @property
    def method(self) -> str:
        """Return the PEFT type, e.g. `LORA`."""
        return str(self.config.get("peft_type"))

    @property
    def targets(self) -> tuple[str, ...]:
        """Name every base tensor that changes, and every one that is new."""
        return tuple(dict.fromkeys((*self.replaced, *self.changes)))

    def source(self, name: str) -> Tensor:
        """Return the tensor that the changes of a target start from."""
        return self.replaced[name] if name in self.replaced else self.base.tensors[name]

    def delta(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Return (merged - base) of some rows of one base tensor, in float64.

        Rows are those of `Tensor.row_shape`: a convolution is flattened, a stack of experts is
        one long matrix.

        Raises:
            ArtefactError: the target is new or has another shape than the base's.
        """
        old = self.base.tensors.get(name)
        source = self.source(name)
        if old is None or old.shape != source.shape:
            raise ArtefactError(f"{self.folder}: {name} has no counterpart in the base to compare")
        changes = self.changes.get(name, ())
        if any(change.is_stack for change in changes):
            old, source = old.as_stack(), source.as_stack()
        stop = source.num_rows if stop is None else stop
        rows = Matrix(source).rows(start, stop)
        for change in changes:
            rows = change.load(Matrix(source))(rows, start)
        difference: NDArray[np.float64] = rows - Matrix(old).rows(start, stop)
        return difference


def open_adapter(path: Path, base: Checkpoint, *, model_config: Mapping[str, Any]) -> OpenedAdapter:
    """Read an adapter and fit every tensor of it to the base.

    Args:
        path: an adapter's folder, or a run directory.
        model_config: the base's `config.json`.

    Raises:
        ArtefactError: the adapter is broken, its method cannot be merged, or it does not belong
            to this base; names the tensors.
    """
    folder = adapter_folder(path)
    config = read_json(folder / "adapter_config.json")
    refuse_unmergeable(config, folder)
    tensors = {t.name: t for t in open_shard(folder / "adapter_model.safetensors").tensors}
    if not tensors:
        raise ArtefactError(f"{folder}: the adapter has no tensors", hint="copy it again")
    parts = group(tensors, base, config)
    changes: dict[str, list[Change]] = {}
    if config.get("target_parameters") or parts.has_strangers:
        parts, changes = _as_transformers_loads(tensors, base, config, model_config)
    by_formula = _by_formula(parts, config, model_config)
    changes |= by_formula or {}
    if by_formula is None:
        from peftkit.merging.through_peft import layer_changes

        through_peft = layer_changes(folder, base, model_config, parts)
        changes |= {name: [change] for name, change in through_peft.items()}
    for name, change in _token_changes(parts, config).items():
        changes.setdefault(name, []).append(change)
    opened = OpenedAdapter(
        folder,
        config,
        tensors,
        base,
        {name: tuple(some) for name, some in changes.items()},
        {parts.names.name(parameter): tensor for parameter, tensor in parts.plain.items()},
    )
    check_used_once(opened)
    return opened


def _as_transformers_loads(
    tensors: Mapping[str, Tensor],
    base: Checkpoint,
    config: Mapping[str, Any],
    model_config: Mapping[str, Any],
) -> tuple[Parts, dict[str, list[Change]]]:
    """Find renamed tensors and fused experts by building the model without weights."""
    from peftkit.merging.experts import expert_changes
    from peftkit.merging.meta_model import build_on_meta
    from peftkit.merging.origins import find_origins

    model = build_on_meta(base.folder, model_config, adapter=config)
    origins = find_origins(model, base)
    names = Names(base.tensors, aliases=origins.aliases, tied=dict(model.all_tied_weights_keys))
    parts = group(tensors, base, config, names)
    bare = {
        module: parameters
        for module, parameters in parts.layers.items()
        if set(parameters) == {"lora_A.weight", "lora_B.weight"}
        and (not names.has(module) or _is_stack(names, module, parameters))
    }
    if not config.get("target_parameters") or str(config.get("peft_type")) != "LORA":
        return parts, {}
    changes = expert_changes(origins, bare, config)
    rest = {module: some for module, some in parts.layers.items() if module not in bare}
    return replace(parts, layers=rest), {name: [change] for name, change in changes.items()}


def _is_stack(names: Names, module: str, parameters: Mapping[str, Tensor]) -> bool:
    """Tell whether a module's weight is a stack of experts; factors of a kernel are not flat."""
    weight = names.find(f"{module}.weight")
    is_flat = len(parameters["lora_A.weight"].shape) == 2
    return weight is not None and len(weight.shape) == 3 and is_flat


def _by_formula(
    parts: Parts, config: Mapping[str, Any], model_config: Mapping[str, Any]
) -> dict[str, list[Change]] | None:
    """Return every layer's changes by its method's formula; None where one layer has none."""
    formula = FORMULAS.get(str(config.get("peft_type")))
    names, changes = parts.names, {}
    if parts.unknown:
        return None
    for module, parameters in parts.layers.items():
        weight = parts.weight(module)
        if weight is None or formula is None:
            return None
        transposed = is_transposed(module, weight, parameters, config, model_config)
        bias = names.find(f"{module}.bias")
        layer = Layer(module, parameters, config, weight, bias, transposed, parts.shared)
        found = formula(layer)
        if found is None:
            return None
        for parameter, change in found.items():
            changes[names.name(f"{module}.{parameter}")] = [change]
    return changes


def _token_changes(parts: Parts, config: Mapping[str, Any]) -> dict[str, Change]:
    """Return what trained tokens do to embeddings."""
    changes = {}
    for module, tensor in parts.tokens.items():
        weight = parts.weight(module)
        if weight is None:
            raise ArtefactError(
                f"the base has no {module}.weight, whose tokens {tensor.name} holds",
                hint="name the base model that this adapter was trained on with --base",
            )
        changes[parts.names.name(f"{module}.weight")] = _set_tokens(config, module, tensor, weight)
    return changes


def refuse_unmergeable(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse methods whose effect is not a change of weights.

    Raises:
        ArtefactError: says why.
    """
    method = config.get("peft_type")
    if method in PROMPTS:
        raise ArtefactError(
            f"{folder}: {method} adds to the model's input or attention, not to its weights, so"
            " there is nothing to merge",
            hint="serve base and adapter together",
        )
    if config.get("alora_invocation_tokens"):
        raise ArtefactError(
            f"{folder}: this LoRA (aLoRA) is active only after its invocation tokens, so it cannot"
            " be merged",
            hint="serve base and adapter together",
        )
    if config.get("layer_replication"):
        raise ArtefactError(
            f"{folder}: this LoRA repeats layers of its base (layer_replication), so that its model"
            " has more layers than the base's file",
            hint="write the repeated layers out as a base of their own first",
        )
    if str(config.get("init_lora_weights")).startswith("pissa_niter"):
        raise ArtefactError(
            f"{folder}: {config['init_lora_weights']} takes a random part out of the base at its"
            " start, which nobody can compute again",
            hint="save it as a plain LoRA: save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)",
        )
    if config.get("arrow_config"):
        raise ArtefactError(
            f"{folder}: Arrow chooses an adapter for every token, so it cannot be merged",
            hint="serve base and adapters together, or merge one of them",
        )


def check_used_once(opened: OpenedAdapter) -> None:
    """Refuse an adapter that has a tensor which the merge would not use.

    Raises:
        ArtefactError: names the tensors.
    """
    used: dict[str, int] = {}
    for change in (change for each in opened.changes.values() for change in each):
        for key in change.uses:
            used[key] = used.get(key, 0) + 1
    for tensor in opened.replaced.values():
        used[tensor.name] = used.get(tensor.name, 0) + 1
    left = sorted(set(opened.tensors) - set(used))
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise ArtefactError(
            f"{opened.folder}: nothing in the base takes {', '.join(left[:3])}{more}",
            hint="name the base model that this adapter was trained on with --base",
        )


def _set_tokens(config: Mapping[str, Any], module: str, tensor: Tensor, weight: Tensor) -> Change:
    """Put trained rows in the place of an embedding's."""
    indices: Any = config.get("trainable_token_indices", config.get("token_indices"))
    if isinstance(indices, Mapping):
        name = next((n for n in indices if f".{module}".endswith(f".{n}")), None)
        indices = indices[name] if name is not None else None
    if not isinstance(indices, list) or len(indices) != tensor.shape[0]:
        raise ArtefactError(
            f"{tensor.file.parent}: {tensor.name} has {tensor.shape[0]} rows, and the config does"
            " not say for which tokens"
        )
    num_rows = 1 + max(indices)
    brings = set(range(weight.shape[0], num_rows)) <= set(indices)
    if tensor.shape[1:] != weight.shape[1:] or min(indices) < 0 or not brings:
        raise ArtefactError(
            f"{tensor.name} is {list(tensor.shape)} for tokens up to {max(indices)}, but the base's"
            f" {weight.name} is {list(weight.shape)}",
            hint="name the base model that this adapter was trained on with --base",
        )

    def load(_: Matrix) -> Any:
        import numpy as np

        trained = Matrix(tensor).rows(0, tensor.num_rows)
        where = np.asarray(indices)

        def put(rows: NDArray[np.float64], start: int) -> NDArray[np.float64]:
            here = (where >= start) & (where < start + len(rows))
            rows = rows.copy()
            rows[where[here] - start] = trained[here]
            return rows

        return put

    return Change((tensor.name,), load, num_rows=num_rows)


def is_transposed(
    module: str,
    weight: Tensor,
    parameters: Mapping[str, Tensor],
    config: Mapping[str, Any],
    model_config: Mapping[str, Any],
) -> bool:
    """Tell whether a weight is stored as (in, out).

    `fan_in_fan_out` cannot be believed: PEFT rewrites it for every layer it meets, and saves what
    the last one needed. Unless the weight is square, the factors' shapes decide.
    """
    if len(weight.shape) != 2 or "lora_embedding_A" in parameters:
        return False
    if weight.shape[0] != weight.shape[1] and {"lora_A.weight", "lora_B.weight"} <= set(parameters):
        fits = (parameters["lora_B.weight"].shape[0], parameters["lora_A.weight"].shape[1])
        return fits == weight.shape[::-1]
    model_type = str(model_config.get("model_type"))
    return is_conv1d(module, model_type) or (
        bool(config.get("fan_in_fan_out")) and module.rsplit(".", 1)[-1] != "lm_head"
    )
