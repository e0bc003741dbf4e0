"""Merge onto a quantized base: which of its weights take the change, and how wrong each choice is.

transformers and the quantization library do the quantizing; the change itself is streamed as ever.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, ResourceError, UsageError, first_line
from peftkit.merging.adapter import OpenedAdapter
from peftkit.merging.changes import Matrix
from peftkit.merging.inputs import Inputs
from peftkit.merging.meta_model import model_class
from peftkit.merging.result import Onto, WeightError
from peftkit.merging.rounding import from_float64, to_float64
from peftkit.merging.weights_io import Checkpoint
from peftkit.models.stored_quantization import stored_quantizer
from peftkit.plugins.quantizer import Quantizer
from peftkit.system.checkpoint_files import read_json
from peftkit.system.quiet import quiet_stack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHOICES = (
    "--onto full (the full-precision weights), --onto dequantized (what training saw) or"
    " --onto requantized (dequantized, then quantized again)"
)
_FAILURES = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError)


def settle_onto(inputs: Inputs, config: Mapping[str, Any], onto: Onto | None) -> Onto:
    """Return which weights take the change, which nobody but the user can know.

    Args:
        config: the base's `config.json`.

    Raises:
        UsageError: it must be said, or cannot be meant.
    """
    is_stored_quantized = "quantization_config" in config
    if inputs.quantize is None and not is_stored_quantized:
        if onto in (None, "full") or inputs.adapter is None:
            return "full"
        raise UsageError(
            f"--onto {onto}: nothing says how {inputs.base} was quantized",
            hint="merge the run, whose recipe says it; or leave --onto out",
        )
    if inputs.adapter is None:
        return "full"
    if onto is None:
        what = "is stored quantized" if is_stored_quantized else "was quantized in training"
        raise UsageError(f"the base {inputs.base} {what}; say which weights to merge onto",
                         hint=_CHOICES)  # fmt: skip
    if onto == "full" and is_stored_quantized:
        raise UsageError(
            f"{inputs.base} holds quantized weights only",
            hint="name the full-precision model with --base, or say --onto dequantized",
        )
    return onto


def quantizer_of(inputs: Inputs, config: Mapping[str, Any]) -> Quantizer | None:
    """Return the quantizer of training; None where the folder is stored quantized.

    Raises:
        RecipeError: the run's recipe cannot be built on this machine.
    """
    if "quantization_config" in config or inputs.run_dir is None or inputs.quantize is None:
        return None
    quiet_stack()
    from peftkit.recipe.build import build
    from peftkit.rundir.trained_recipe import load_trained_recipe
    from peftkit.system.machine import describe_machine

    return build(load_trained_recipe(inputs.run_dir), describe_machine()).quantizer


def write_dequantized(
    base: Path, config: Mapping[str, Any], quantizer: Quantizer | None, folder: Path
) -> Path:
    """Quantize a base as training did, or read it quantized, and write what it then stands for.

    Raises:
        ResourceError: the quantization does not run on this machine.
        ArtefactError: the quantization cannot be undone.
    """
    model = load_quantized(base, config, quantizer)
    made_by = quantizer or stored_quantizer(config)
    try:
        model = model.dequantize() if made_by is None else made_by.dequantize(model)
        # Undoing the conversions of a model that was stored quantized is not implemented in
        # transformers 5.23; experts then stay fused, which loads as well.
        model.save_pretrained(folder, save_original_format=quantizer is not None)
    except _FAILURES as error:
        raise ArtefactError(
            f"{base} cannot be dequantized: {error}",
            hint="merge onto the full-precision weights: --onto full --base FOLDER",
        ) from error
    return folder


def load_quantized(
    base: Path, config: Mapping[str, Any], quantizer: Quantizer | None, **options: Any
) -> Any:
    """Load a base as training did, in evaluation mode.

    Args:
        config: names the class: the base's own, or that of what was trained on it.
        quantizer: of training; None for a base that is stored quantized.
        options: more of what `from_pretrained` takes, e.g. `num_labels`.

    Raises:
        ResourceError: the quantization does not run on this machine.
    """
    quiet_stack()
    from transformers.utils import logging

    logging.disable_progress_bar()
    keywords: dict[str, Any] = {"dtype": "auto", "device_map": {"": "cpu"}, **options}
    if quantizer is not None and quantizer.native is not None:
        keywords["quantization_config"] = quantizer.native
    try:
        model = model_class(config, None, base).from_pretrained(base, **keywords)
    except (ImportError, *_FAILURES) as error:
        raise ResourceError(
            f"{base} cannot be loaded quantized on this machine: {first_line(error)}",
            hint="merge where it was trained, or --onto full with the full-precision weights",
        ) from error
    # `config` may be that of what was dequantized: how the base is stored stands in its own.
    made_by = quantizer or stored_quantizer(read_json(base / "config.json"))
    if made_by is not None:
        made_by.prepare(model)
    return model.eval()


def write_requantized(
    merged: Path, quantizer: Quantizer | None, config: Mapping[str, Any], out: Path, work: Path
) -> list[str]:
    """Quantize a merged model, and move the weights that transformers writes to `out`.

    Returns:
        The names of the weights' files; the configuration stays in `work/requantized`.
    """
    made_by = quantizer or stored_quantizer(config)
    if made_by is None:
        raise ArtefactError(
            f"nobody here knows how the base of {merged} was quantized: {_name_of(config)}",
            hint="--onto dequantized, or install the plugin of that quantization",
        )
    if made_by.native is None:
        raise UsageError(
            "--onto requantized: this quantization has no format of checkpoints",
            hint="--onto dequantized, and quantize it where it is loaded",
        )
    model = load_quantized(merged, read_json(merged / "config.json"), made_by)
    try:
        model.save_pretrained(work / "requantized")
    except _FAILURES as error:
        raise ArtefactError(f"transformers cannot save {merged} quantized: {error}") from error
    names = sorted(file.name for file in (work / "requantized").glob("model*"))
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        (work / "requantized" / name).replace(out / name)
        with (out / name).open("rb") as stream:
            os.fsync(stream.fileno())
    return names


def _name_of(config: Mapping[str, Any]) -> str:
    return str((config.get("quantization_config") or {}).get("quant_method"))


def measure_errors(
    opened: OpenedAdapter, full: Checkpoint | None, quantizer: Quantizer | None
) -> tuple[WeightError, ...]:
    """Measure how far each way of merging is from (dequantized base + delta), over all weights.

    Args:
        opened: the adapter on the dequantized base.
        full: the full-precision weights; None where there are none.
    """
    sums: dict[Onto, list[float]] = {"full": [], "dequantized": [], "requantized": []}
    largest: dict[Onto, float] = {"full": 0.0, "dequantized": 0.0, "requantized": 0.0}
    total: list[float] = []
    for name in opened.changes:
        tensor = opened.source(name)
        if len(tensor.shape) != 2 or name in opened.replaced:
            continue
        seen = Matrix(tensor).rows(0, tensor.num_rows)
        exact = seen + opened.delta(name)
        rounded = to_float64(from_float64(exact, tensor.dtype), tensor.dtype)
        candidates: dict[Onto, NDArray[np.float64] | None] = {
            "dequantized": rounded,
            "requantized": _quantized_and_back(rounded, quantizer),
            "full": None,
        }
        if full is not None and name in full.tensors:
            whole = Matrix(full.tensors[name]).rows(0, tensor.num_rows) + exact - seen
            candidates["full"] = to_float64(from_float64(whole, tensor.dtype), tensor.dtype)
        total.append(float((exact**2).sum()))
        for onto, values in candidates.items():
            if values is not None:
                sums[onto].append(float(((values - exact) ** 2).sum()))
                largest[onto] = max(largest[onto], float(abs(values - exact).max()))
    return tuple(
        WeightError(onto, math.sqrt(sum(some) / sum(total)), largest[onto])
        for onto, some in sums.items()
        if some
    )


def _quantized_and_back(
    values: NDArray[np.float64], quantizer: Quantizer | None
) -> NDArray[np.float64] | None:
    """Quantize one weight and undo it; None where nobody knows how."""
    import torch

    if quantizer is None:
        return None
    back = quantizer.there_and_back(torch.from_numpy(values).float())
    if back is None:
        return None
    result: NDArray[np.float64] = back.double().numpy()
    return result
