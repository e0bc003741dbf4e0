"""Optimizers by transformers' names: the package that each needs, and what else must be said."""

from __future__ import annotations

from importlib.util import find_spec

from peftkit.recipe.stated import Found, Stated, is_count

PACKAGES = {
    "adalomo": ("lomo_optim", "pip install lomo-optim"),
    "adamw_anyprecision": ("torchdistx", "install github.com/pytorch/torchdistx"),
    "adamw_torch_4bit": ("torchao", "pip install 'peftkit[torchao]'"),
    "adamw_torch_8bit": ("torchao", "pip install 'peftkit[torchao]'"),
    "adamw_torch_npu_fused": ("torch_npu", "pip install torch-npu, on a machine with an NPU"),
    "adamw_torch_xla": ("torch_xla", "pip install torch-xla, on a machine with a TPU"),
    "apollo_adamw": ("apollo_torch", "pip install apollo-torch"),
    "apollo_adamw_layerwise": ("apollo_torch", "pip install apollo-torch"),
    "galore_adafactor": ("galore_torch", "pip install galore-torch"),
    "galore_adafactor_layerwise": ("galore_torch", "pip install galore-torch"),
    "galore_adamw": ("galore_torch", "pip install galore-torch"),
    "galore_adamw_8bit": ("galore_torch", "pip install galore-torch"),
    "galore_adamw_8bit_layerwise": ("galore_torch", "pip install galore-torch"),
    "galore_adamw_layerwise": ("galore_torch", "pip install galore-torch"),
    "grokadamw": ("grokadamw", "pip install grokadamw"),
    "lomo": ("lomo_optim", "pip install lomo-optim"),
    "schedule_free_adamw": ("schedulefree", "pip install schedulefree"),
    "schedule_free_radam": ("schedulefree", "pip install 'schedulefree>=1.4'"),
    "schedule_free_sgd": ("schedulefree", "pip install schedulefree"),
    "stable_adamw": ("optimi", "pip install torch-optimi"),
}
"""Name in `optim` -> the module that transformers imports for it, and where that comes from.

Every other name needs what peftkit installs: torch, transformers or bitsandbytes.
"""
_PROJECTED = ("galore_", "apollo_")
"""How the optimizers begin that project gradients of modules which must be named."""


def optimizer(stated: Stated) -> Found:
    """Find an optimizer that could not be made, which transformers says after reading weights."""
    name = stated.options.get("optim")
    if not isinstance(name, str):
        return
    package, install = PACKAGES.get(name, (None, None))
    if package is not None and find_spec(package) is None:
        yield stated.at("optim"), f"{name} needs the package {package}, which is missing", install
    if name.startswith(_PROJECTED) and not stated.options.get("optim_target_modules"):
        yield (
            stated.at("optim"),
            f"{name} projects the gradients of modules that must be named",
            f"write {stated.at('optim_target_modules')}: all-linear",
        )
    accumulated = stated.options.get("gradient_accumulation_steps")
    if name.endswith("_layerwise") and is_count(accumulated) and accumulated > 1:
        yield (
            stated.at("gradient_accumulation_steps"),
            f"{name} steps within the backward pass, so nothing can be accumulated",
            f"write 1, or optim: {name.removesuffix('_layerwise')}",
        )
