"""The configuration of the model that a recipe's plan is of, read without its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.memory.lengths import fit_head

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from peftkit.recipe.build import Built
    from peftkit.recipe.schema import ModelSection


def config_of(built: Built, lengths: Sequence[int] | None) -> PretrainedConfig:
    """Return the configuration of the model that a recipe's method trains, its head fitted."""
    from peftkit.models.load_errors import check_trains

    config = planned_config(built.recipe.model)
    check_trains(config, built.method.kind)
    built.method.check_config(config)
    is_regression = built.task.is_regression
    return fit_head(config, built.method.kind, lengths, is_regression=is_regression)


def with_tokens(built: Built, config: PretrainedConfig) -> tuple[Built, PretrainedConfig]:
    """Give the model that is planned rows for the tokens that the recipe adds."""
    from peftkit.models.new_tokens import grow_config, with_new_tokens
    from peftkit.models.tokenizer import expected_tokens

    new = expected_tokens(built.recipe.model, config)
    grow_config(config, new)
    return with_new_tokens(built, new), config


def planned_config(model: ModelSection) -> PretrainedConfig:
    """Read a model's configuration: the catalogue's where it knows the Hub id, else its own.

    Raises:
        ArtefactError: this transformers does not know the architecture, or it is custom code.
        NetworkError: the Hub, which alone knows this id, is out of reach.
    """
    from transformers import AutoConfig

    from peftkit.memory import catalogue
    from peftkit.models.load import load_config
    from peftkit.models.load_errors import load_explained
    from peftkit.system.checkpoint_files import read_json
    from peftkit.system.foreign_fields import check_config_fields

    found = catalogue.find(model.path) if model.path is not None else None
    if found is not None:
        return AutoConfig.for_model(found.pop("model_type"), **found)
    folder = Path(model.path or "", model.subfolder or "").expanduser()
    is_folder = model.path is not None and (folder / "config.json").is_file()
    if is_folder and not any(folder.glob("*.safetensors*")):
        # A folder without weights can be planned, though not loaded.
        check_config_fields(read_json(folder / "config.json"), str(folder / "config.json"))
        with load_explained(str(folder)):
            # Left out, transformers would ask at the terminal.
            trusts = model.trust_remote_code
            return AutoConfig.from_pretrained(str(folder), trust_remote_code=trusts)
    if model.config is not None and model.tokenizer is not None:
        sizes = {"vocab_size": model.tokenizer.options.get("vocab_size", 8192), **model.config}
        model = dataclasses.replace(model, config=sizes)
    return load_config(model)
