"""Whose head the result has: the base's own, or one that the adapter brings to a new class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.merging.adapter import OpenedAdapter
from peftkit.merging.meta_model import TASK_CLASSES, build_on_meta, label_parameters, model_class
from peftkit.merging.origins import find_origins
from peftkit.preprocessing.class_labels import labels_of_config
from peftkit.system.checkpoint_files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LABELLED = ("ForSequenceClassification", "ForTokenClassification")
"""Endings of the classes whose configuration names labels."""


@dataclass(frozen=True)
class NewHead:
    """Name the class that the adapter makes of the base."""

    architecture: str
    left_over: frozenset[str]
    """Tensors of the base that this class does not have, its own head's among them."""


def find_new_head(
    adapter: OpenedAdapter, config: Mapping[str, Any], new: Collection[str]
) -> NewHead | None:
    """Tell whether an adapter puts another head on the base; None where the base's class stays.

    Args:
        config: the base's `config.json`.
        new: tensors of the result that the base does not have.

    Raises:
        ArtefactError: the adapter was trained under a head that neither it nor the base holds.
    """
    names = config.get("architectures") or [""]
    if not _may_be_another(adapter.config, names[0]):
        return None
    cls = model_class(config, adapter.config, adapter.base.folder)
    if cls.__name__ in names:
        return None
    model = build_on_meta(adapter.base.folder, config, adapter=adapter.config)
    origins = find_origins(model, adapter.base)
    missing = [
        name
        for name in _head_parameters(model)
        if not (name in new or name in origins.pieces or name in origins.unclear)
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ArtefactError(
            f"{adapter.folder} was trained on a {cls.__name__}, and neither it nor the base holds"
            f" {', '.join(missing[:3])}{more}",
            hint="name the base whose head it was trained with: --base; a head that was new then,"
            " and not in modules_to_save, is lost",
        )
    return NewHead(cls.__name__, origins.left_over) if new else None


def labels_of(adapter: OpenedAdapter, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the result's configuration says of labels: a run's, or as many as the head has.

    Args:
        config: the result's, as far as it is known; it names the class.
    """
    if not str((config.get("architectures") or [""])[0]).endswith(_LABELLED):
        return {}
    saved = adapter.folder / "config.json"
    if saved.is_file():  # a run writes the labels there
        return labels_of_config(read_json(saved))
    old = adapter.base.tensors
    brought = {
        name: tensor.shape
        for name, tensor in adapter.replaced.items()
        if name not in old or old[name].shape != tensor.shape
    }
    if not brought:
        return {}
    rows = label_parameters(adapter.base.folder, config)
    width = next((shape[0] for name, shape in brought.items() if name in rows), None)
    # transformers leaves two labels out of a config.json
    if width is None or width == len(config.get("id2label") or (0, 1)):
        return {}
    names = {number: f"LABEL_{number}" for number in range(width)}
    return {
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }


def _may_be_another(adapter: Mapping[str, Any], architecture: str) -> bool:
    """Tell, from names alone, whether an adapter was perhaps trained on another class."""
    task = adapter.get("task_type")
    if task is None:
        named = (adapter.get("auto_mapping") or {}).get("base_model_class")
        return named is not None and named != architecture
    return task in TASK_CLASSES and not architecture.endswith(
        TASK_CLASSES[task].removeprefix("AutoModel")
    )


def _head_parameters(model: PreTrainedModel) -> list[str]:
    """Name the parameters beside a model's body; none where the model is a bare body."""
    from peftkit.plugins.native import head_modules

    if not hasattr(model, model.base_model_prefix):
        return []
    heads = tuple(f"{name}." for name in head_modules(model))
    tied = model.all_tied_weights_keys
    return [n for n, _ in model.named_parameters() if n.startswith(heads) and n not in tied]
