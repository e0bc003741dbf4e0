"""Load a model or an adapter that is no run: merged, exported, foreign, or a bare base."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import RecipeError, UsageError
from peftkit.recipe.schema import Choice, ModelSection, Recipe
from peftkit.recipe.sections import read_sections
from peftkit.recipe.strict import Gate
from peftkit.rundir.base_record import check_base
from peftkit.rundir.trained_recipe import named_base, on_base
from peftkit.system.checkpoint_files import read_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.recipe.build import Built

METHODS = {
    "ForSequenceClassification": "classify",
    "ForQuestionAnswering": "question_answering",
}
"""Ending of an architecture -> the method whose models answer as it does."""
_UNASKED = ("ForMaskedLM", "ForPreTraining")
_CONFIG, _ADAPTER = "config.json", "adapter_config.json"


@dataclass(frozen=True)
class OpenedModel:
    """Hold what answers need of a model, its weights still unread."""

    built: Built
    tokenizer: PreTrainedTokenizerBase
    load: Callable[[], PreTrainedModel | PeftModel]


def is_model(place: str) -> bool:
    """Tell whether a word names a model or an adapter: a folder, one that ships, one of the Hub.

    Of the Hub is what looks like `owner/name` where no folder `owner` is: a run's name that is
    misspelt is never asked for there.
    """
    folder = Path(place)
    if folder.is_dir():
        return any((folder / name).is_file() for name in (_CONFIG, _ADAPTER))
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w.-]+)?", place) is not None
    return place.startswith("embedded:") or (is_hub_id and not folder.parent.exists())


def open_model(
    place: str, *, base: str | None = None, allow_other_base: bool = False
) -> OpenedModel:
    """Read a model's configuration and tokenizer; no weights yet.

    It is asked as its kind is: by its chat template where it has one, else by running text.

    Args:
        place: as `is_model` takes it; of the Hub with `@REVISION`.
        base: an adapter's base; the one that the adapter names when absent.

    Raises:
        ArtefactError: files are missing or broken, or an adapter's base is not there.
        UsageError: nothing can be asked of such a model, or the adapter was trained on other
            weights of its base.
    """
    from peftkit.models.load import identify_base, load_config
    from peftkit.models.tokenizer import load_tokenizer
    from peftkit.recipe.build import build
    from peftkit.system.machine import describe_machine

    folder = Path(place)
    adapter = folder if (folder / _ADAPTER).is_file() else None
    section = on_base(ModelSection(), place if adapter is None else base or named_base(folder))
    if adapter is not None:
        identity = identify_base(section)
        check_base(adapter, identity, use="generate", allow_other=allow_other_base)
    method = _method(load_config(section), adapter)
    if adapter is not None and (adapter / "tokenizer_config.json").is_file():
        section = replace(section, tokenizer=Choice("path", {"path": str(adapter.resolve())}))
    tokenizer = load_tokenizer(section, Path())
    recipe = _recipe(section, method, _task(method, has_template=bool(tokenizer.chat_template)))
    machine = describe_machine()
    built = build(recipe, machine)
    return OpenedModel(built, tokenizer, lambda: _load(built, adapter, machine.device))


def _task(method: str, *, has_template: bool) -> str:
    """Return the task that asks a model of this method."""
    if method not in ("sft", "seq2seq"):
        return method  # the tasks of labels and of spans have their methods' names
    if has_template:
        return "chat"
    return "text" if method == "sft" else "prompt_completion"


def _method(config: PretrainedConfig, adapter: Path | None) -> str:
    """Return the method whose models answer as this one does."""
    own = adapter / _CONFIG if adapter is not None else None
    named = read_json(own).get("architectures") if own is not None and own.is_file() else None
    for architecture in named or config.architectures or ():
        if str(architecture).endswith(_UNASKED):
            raise UsageError(
                f"{architecture} answers no prompts: it was trained to fill in masked words",
                hint="fine-tune it: method classify, question_answering or regress",
            )
        for ending, method in METHODS.items():
            if str(architecture).endswith(ending):
                return method
    return "seq2seq" if config.is_encoder_decoder else "sft"


def _recipe(section: ModelSection, method: str, task: str) -> Recipe:
    """Return the recipe of a run that would have left this model; its rows are never read."""
    file = str(section.path)
    gate = Gate(file, {}, unneeded=("data",))
    sections = read_sections(gate, {
        "name": "model",
        "model": {"path": "embedded:docstring-lm"},
        "data": {"source": {"json": {"files": "rows.jsonl"}}, "task": {task: {}}},
        "adapter": "full",
        "method": {method: {}},
    })  # fmt: skip
    if gate.problems:
        raise RecipeError(file, gate.sorted_problems())
    return Recipe(**{**sections, "model": section}, file=Path("model.yaml"), text="", lines={})


def _load(built: Built, adapter: Path | None, device: str) -> PreTrainedModel | PeftModel:
    from peftkit.adapters.continued import brought_by, load_adapter
    from peftkit.models.base import load_base
    from peftkit.preprocessing.class_labels import labels_of_config

    kind, section = built.method.kind, built.recipe.model
    if adapter is None:
        return load_base(section, kind=kind, device=device, brought=frozenset())
    own = adapter / _CONFIG
    labels = labels_of_config(read_json(own)) if own.is_file() else {}
    brought = brought_by(adapter)
    base = load_base(section, kind=kind, device=device, config_options=labels, brought=brought)
    return load_adapter(base, adapter, is_trainable=False)
