"""What a quantization is told beside what the recipe states: its model's dtype, and new modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.plugins import ModelKind, find
from peftkit.plugins.machine import Decision, decided
from peftkit.recipe.schema import ModelSection
from peftkit.system.checkpoint_files import read_json

_FLOATING = ("float32", "bfloat16", "float16")


def decide_quantization(model: ModelSection, kind: ModelKind) -> list[Decision]:
    """Choose the quantization's native options that stand nowhere in the recipe."""
    choice = model.quantize
    if choice is None:
        return []
    quantizer = find("quantizers", choice.name)
    chosen = quantizer.decide(choice.options, dtype=_dtype_of_model(model), kept_modules=kind.heads)
    return decided(f"model.quantize.{choice.name}", chosen, choice.options)


def compute_dtype(model: ModelSection) -> str:
    """Return the dtype that a base multiplies in where autocast says nothing, as `model.dtype`."""
    choice = model.quantize
    if choice is None:
        return model.dtype
    quantizer = find("quantizers", choice.name)
    chosen = quantizer.decide(choice.options, dtype=_dtype_of_model(model), kept_modules=())
    options = {**{one.option: one.value for one in chosen}, **choice.options}
    return str(quantizer.compute_dtype(options, dtype=model.dtype))


def _dtype_of_model(model: ModelSection) -> str:
    return (declared_dtype(model) or "auto") if model.dtype == "auto" else model.dtype


def declared_dtype(model: ModelSection) -> str | None:
    """Return the dtype that a checkpoint's config.json declares; None where it is not at hand.

    Of a model of the Hub only the cache is asked, never the network.
    """
    try:
        file = _config_file(model)
        config = read_json(file) if file is not None else {}
    except ArtefactError:
        return None
    for part in (config, config.get("text_config")):
        found = _dtype_of(part) if isinstance(part, Mapping) else None
        if found is not None:
            return found
    return None


def _dtype_of(config: Mapping[str, Any]) -> str | None:
    # `torch_dtype` is how transformers before 4.56 wrote it.
    found = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return found if found in _FLOATING else None


def _config_file(model: ModelSection) -> Path | None:
    name = "config.json"
    if model.path is None:
        return None
    if model.path.startswith("embedded:"):
        from peftkit.embedded import model_path

        return model_path(model.path.removeprefix("embedded:")) / name
    folder = Path(model.path).expanduser() / (model.subfolder or "")
    if folder.is_dir():
        return folder / name
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    inside = f"{model.subfolder}/{name}" if model.subfolder else name
    try:
        cached = try_to_load_from_cache(model.path, inside, revision=model.revision)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None
