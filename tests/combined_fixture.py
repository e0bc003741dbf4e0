"""Tensors and adapters to combine, and peft's own combinations in float64."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from merge_fixture import NOTICES, load, make_adapter, make_base

WEIGHTS = [0.7, -0.4, 1.3]


def make_parts() -> list[np.ndarray]:
    """Return three tensors with zeros and shared signs among them."""
    source = np.random.default_rng(3)
    parts = [source.standard_normal((19, 13)) for _ in WEIGHTS]
    parts[1][parts[1] < -1] = 0.0
    return parts


def by_peft(name: str, parts: list[np.ndarray], **options: Any) -> np.ndarray:
    """Combine with a function of `peft.utils.merge_utils`."""
    import torch
    from peft.utils import merge_utils

    tensors = [torch.from_numpy(part) for part in parts]
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    combined: np.ndarray = getattr(merge_utils, name)(tensors, weights, **options).numpy()
    return combined


KINDS = {
    "linear": {}, "cat": {}, "svd": {}, "ties": {"density": 0.5}, "ties_svd": {"density": 0.5},
    "magnitude_prune": {"density": 0.4}, "magnitude_prune_svd": {"density": 0.4},
}  # fmt: skip
"""peft's combinations without chance -> options."""


def two_loras(kind: str, folder: Path) -> tuple[Path, Path, Path]:
    """Save a float32 base and two LoRAs of rank 3 that share some targets; return all folders."""
    from peft import LoraConfig

    shared, first, second = {
        "llama": ("q_proj", "down_proj", "embed_tokens"),
        "gpt2": ("c_attn", "c_fc", "c_proj"),
    }[kind]
    base = make_base(kind, folder / "base", dtype="float32")
    one = LoraConfig(r=3, lora_alpha=7, target_modules=[shared, first])
    other = LoraConfig(r=3, lora_alpha=2, use_rslora=True, target_modules=[shared, second])
    return (
        base,
        make_adapter(base, folder / "one", one),
        make_adapter(base, folder / "other", other, seed=2),
    )


def weighted_by_peft(
    base: Path, adapters: Sequence[Path], weights: list[float], kind: str, **options: Any
) -> dict[str, np.ndarray]:
    """Return module -> change after `add_weighted_adapter`, all in float64."""
    import torch
    from peft import PeftModel

    with warnings.catch_warnings():
        for notice in NOTICES:
            warnings.filterwarnings("ignore", notice)
        model = PeftModel.from_pretrained(load(base), adapters[0], "0", torch_device="cpu")
        for index, adapter in enumerate(adapters[1:], start=1):
            model.load_adapter(adapter, str(index), torch_device="cpu")
        model.to(torch.float64)
        names = [str(index) for index in range(len(adapters))]
        with torch.random.fork_rng():
            model.add_weighted_adapter(names, weights, "new", kind, **options)
    return deltas_of(model, "new")


def deltas_of(model: Any, adapter: str) -> dict[str, np.ndarray]:
    """Return module -> change of an attached LoRA, as peft computes it."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): module.get_delta_weight(adapter).detach().numpy()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and adapter in module.scaling
    }


def opened_by_peft(base: Path, adapter: Path) -> Any:
    """Attach an adapter to its base as anyone would, in float64."""
    import torch
    from peft import PeftModel

    with warnings.catch_warnings():
        for notice in NOTICES:
            warnings.filterwarnings("ignore", notice)
        model = PeftModel.from_pretrained(load(base), adapter, torch_device="cpu")
    return model.to(torch.float64)


def as_method(kind: str, weights: list[float], **options: Any) -> str:
    """Write what `--method` takes."""
    return json.dumps({kind: {"weights": weights, **options}})
