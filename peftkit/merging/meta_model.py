"""The base as transformers builds it, without weights: what a checkpoint alone does not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.models.load_errors import load_explained
from peftkit.system.foreign_fields import check_config_fields
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TASK_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""PEFT task type -> the transformers class whose head an adapter brings along."""


def model_class(
    config: Mapping[str, Any], adapter: Mapping[str, Any] | None, where: Path
) -> type[Any]:
    """Return the class that an adapter was trained on: its task's, the one it names, or the base's.

    Args:
        config: the base's `config.json`.
        adapter: the adapter's `adapter_config.json`; None for a model without one.

    Raises:
        ArtefactError: transformers has no such class.
    """
    quiet_stack()
    import transformers
    from transformers import AutoConfig

    named = (config.get("architectures") or [None])[0]
    task_type, model_type = (adapter or {}).get("task_type"), str(config.get("model_type"))
    if task_type in TASK_CLASSES:
        auto = getattr(transformers, TASK_CLASSES[task_type])
        with load_explained(str(where)):
            native = type(AutoConfig.for_model(model_type))
        if native in auto._model_mapping:
            named = auto._model_mapping[native].__name__
    elif task_type is None and adapter:
        named = _named_by(adapter, model_type) or named
    found = getattr(transformers, str(named), None)
    if found is None:
        raise ArtefactError(
            f"{where} is a {named}, which transformers {transformers.__version__} does not have",
            hint="pip install --upgrade transformers; models with code of their own are not merged",
        )
    return found  # type: ignore[no-any-return]


def _named_by(adapter: Mapping[str, Any], model_type: str) -> str | None:
    """Return the class of this architecture that PEFT recorded, as it does where no task is named.

    A name of transformers' own is looked up; the module that the record names is not imported.
    """
    import transformers

    name = (adapter.get("auto_mapping") or {}).get("base_model_class")
    native = getattr(getattr(transformers, str(name), None), "config_class", None)
    return name if getattr(native, "model_type", None) == model_type else None


def build_on_meta(
    folder: Path,
    config: Mapping[str, Any],
    *,
    adapter: Mapping[str, Any] | None = None,
    **changes: Any,
) -> PreTrainedModel:
    """Build the model with parameters that have shapes only.

    Args:
        adapter: the `adapter_config.json` of what is put on it, which can say its class.
        changes: configuration values that the adapter implies, e.g. `num_labels`.
    """
    quiet_stack()
    import torch
    from transformers import AutoConfig

    check_config_fields(config, str(folder / "config.json"))
    cls = model_class(config, adapter, folder)
    with load_explained(str(folder)):
        native = AutoConfig.from_pretrained(folder, **changes)
        if hasattr(native, "quantization_config"):
            del native.quantization_config
        with torch.device("meta"):
            model: PreTrainedModel = cls(native)
    return model.eval()


def tied_parameters(folder: Path, config: Mapping[str, Any], **changes: Any) -> dict[str, str]:
    """Return the parameters that share another one's weights -> that other one.

    Args:
        changes: as `build_on_meta` takes them.
    """
    model = build_on_meta(folder, config, **changes)
    return dict(model.all_tied_weights_keys)


def label_parameters(folder: Path, config: Mapping[str, Any]) -> frozenset[str]:
    """Return a classifier's parameters that have one row a label."""
    probe = 9973  # no layer is as wide as this prime
    model = build_on_meta(folder, config, num_labels=probe)
    return frozenset(n for n, p in model.named_parameters() if p.shape[:1] == (probe,))
