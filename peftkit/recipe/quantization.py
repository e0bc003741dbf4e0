"""What is chosen of a quantization where the recipe is silent.

By bitsandbytes' own defaults a 4-bit base is fp4 and computed in float32, and a classifier's new
head is quantized before it is trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from peftkit.errors import ArtefactError
from peftkit.plugins import Decision, ModelKind
from peftkit.recipe.schema import Choice, ModelSection
from peftkit.recipe.signatures import quantization_classes, signature_of
from peftkit.system.checkpoint_files import read_json

KEEPS_MODULES = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")
"""How transformers' quantization configs call the modules that they leave as they are."""

BITS: Mapping[str, int | str] = {
    "auto-round": "bits",
    "awq": "bits",
    "bitnet": 2,
    "eetq": 8,
    "fbgemm_fp8": 8,
    "fouroversix": 4,
    "fp8": 8,
    "fp_quant": 4,
    "gptq": "bits",
    "higgs": "bits",
    "hqq": "nbits",
    "metal": "bits",
    "mxfp4": 4,
    "mxfp8": 8,
    "nvfp4": 4,
    "quanto": "weights",
    "sinq": "nbits",
    "spqr": "bits",
}
"""Quantization -> bits of a weight without its scales, or the option that says them. What is not
here decides them layer by layer, or by objects that no recipe can write."""

_FLOATING = ("float32", "bfloat16", "float16")


def decide_quantization(model: ModelSection, kind: ModelKind) -> list[Decision]:
    """Choose the quantization's native options that stand nowhere in the recipe."""
    choice = model.quantize
    if choice is None:
        return []
    chosen = [*_kept_heads(choice, kind), *_four_bits(choice, model)]
    return [
        Decision(f"model.quantize.{choice.name}.{key}", value, reason)
        for key, value, reason in chosen
        if key not in choice.options
    ]


def _kept_heads(choice: Choice, kind: ModelKind) -> Iterator[tuple[str, Any, str]]:
    """Leave a classification head out of the quantization: it is new, and trained whole."""
    if not kind.heads:
        return
    known = signature_of(quantization_classes()[choice.name]).options
    for option in KEEPS_MODULES:
        if option in known:
            reason = "a new head is trained whole, and quantized weights cannot be"
            yield option, list(kind.heads), reason


def _four_bits(choice: Choice, model: ModelSection) -> Iterator[tuple[str, Any, str]]:
    """Choose QLoRA's 4-bit numbers, and to compute in the dtype of everything around them."""
    if choice.name != "bitsandbytes" or choice.options.get("load_in_4bit") is not True:
        return
    reason = "made for normally distributed weights; bitsandbytes' default is fp4"
    yield "bnb_4bit_quant_type", "nf4", reason
    if model.dtype != "auto":
        dtype, why = model.dtype, f"model.dtype is {model.dtype}"
    else:
        found = declared_dtype(model)
        dtype = found or "bfloat16"
        why = f"the checkpoint is {found}" if found else "no dtype of the checkpoint is known yet"
    yield "bnb_4bit_compute_dtype", dtype, f"{why}; bitsandbytes' default computes in float32"


def compute_dtype(model: ModelSection) -> str:
    """Return the dtype that a base multiplies in where autocast says nothing, as `model.dtype`."""
    choice = model.quantize
    if choice is None or choice.options.get("load_in_4bit") is not True:
        return model.dtype
    decided = {key: value for key, value, _ in _four_bits(choice, model)}
    return str({**decided, **choice.options}["bnb_4bit_compute_dtype"] or "float32")


def weight_bits(choice: Choice) -> int | None:
    """Return the bits that a quantized weight takes at least; None where nothing says them."""
    options = choice.options
    if choice.name == "bitsandbytes":
        return 4 if options.get("load_in_4bit") is True else 8
    found = BITS.get(choice.name)
    if not isinstance(found, str):
        return found
    default = signature_of(quantization_classes()[choice.name]).options[found].default
    digits = re.sub(r"\D", "", str(options.get(found, default)))  # quanto's `int4`, `float8`
    return int(digits) if digits else None


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
