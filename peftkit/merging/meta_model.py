"""The base as transformers builds it, without weights: what a checkpoint alone does not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError
from peftkit.system.checkpoint_files import check_config_fields
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TASK_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}
"""PEFT task type -> the transformers class whose head an adapter brings along."""


def model_class(config: Mapping[str, Any], task_type: str | None, where: Path) -> type[Any]:
    """Return the class that the adapter was trained on: the base's, or its task's.

    Raises:
        ArtefactError: transformers has no such class.
    """
    quiet_stack()
    import transformers
    from transformers import AutoConfig

    named = (config.get("architectures") or [None])[0]
    if task_type in _TASK_CLASSES:
        auto = getattr(transformers, _TASK_CLASSES[task_type])
        native = type(AutoConfig.for_model(str(config.get("model_type"))))
        if native in auto._model_mapping:
            named = auto._model_mapping[native].__name__
    found = getattr(transformers, str(named), None)
    if found is None:
        raise ArtefactError(
            f"{where} is a {named}, which transformers {transformers.__version__} does not have",
            hint="pip install --upgrade transformers; models with code of their own are not merged",
        )
    return found  # type: ignore[no-any-return]


def build_on_meta(
    folder: Path, config: Mapping[str, Any], *, task_type: str | None = None, **changes: Any
) -> PreTrainedModel:
    """Build the model with parameters that have shapes only.

    Args:
        changes: configuration values that the adapter implies, e.g. `num_labels`.
    """
    quiet_stack()
    import torch
    from transformers import AutoConfig

    check_config_fields(config, str(folder / "config.json"))
    cls = model_class(config, task_type, folder)
    native = AutoConfig.from_pretrained(folder, **changes)
    if hasattr(native, "quantization_config"):
        del native.quantization_config
    with torch.device("meta"):
        model: PreTrainedModel = cls(native)
    return model.eval()


def tied_parameters(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that share another one's weights -> that other one."""
    model = build_on_meta(folder, config)
    return dict(model.all_tied_weights_keys)
