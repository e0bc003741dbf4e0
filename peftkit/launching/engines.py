"""The engines that are known by name: accelerate's own config files, and what each cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from peftkit.errors import UsageError
from peftkit.plugins.speed import UPSTREAM_OVERRIDE

if TYPE_CHECKING:
    from peftkit.plugins import Quantizer
    from peftkit.recipe.schema import Recipe


@dataclass(frozen=True)
class Engine:
    """Say how processes share a model, by a config file of accelerate's."""

    name: str
    cuts_weights: bool
    """Whether a process holds a part of each weight only."""
    package: str | None = None
    """What must be installed beside the stack."""
    gathers_by_layer: bool = False
    """Whether a weight is whole within the forward of its own layer only, and nowhere else."""

    @property
    def file(self) -> Path:
        """The config file, for `accelerate launch --config_file`."""
        return Path(__file__).parent / "engine_files" / f"{self.name}.yaml"

    @property
    def is_fsdp(self) -> bool:
        """Tell whether the recipe's own `fsdp` asks for the same."""
        return self.name == "fsdp2"


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("ddp", cuts_weights=False),
        Engine("fsdp2", cuts_weights=True),
        Engine("zero2", cuts_weights=False, package="deepspeed"),
        Engine("zero3", cuts_weights=True, package="deepspeed", gathers_by_layer=True),
    )
}


def engine_of(name: str | None, recipe: Recipe) -> Engine:
    """Find an engine by its name, or the one that a recipe means.

    Raises:
        UsageError: there is none of this name.
    """
    if name is None:
        return ENGINES["fsdp2" if recipe.method.options.get("fsdp") else "ddp"]
    if name not in ENGINES:
        close = get_close_matches(name.lower(), ENGINES, n=1, cutoff=0.5)
        raise UsageError(
            f"--engine {name} is none of {', '.join(ENGINES)}",
            hint=f"--engine {close[0]}" if close else "-- --config_file FILE for one of your own",
        )
    return ENGINES[name]


def overrides_for(engine: Engine, recipe: Recipe) -> list[str]:
    """Return what the recipe must say so that plan, budget and trainer know of the engine."""
    if engine.is_fsdp and not recipe.method.options.get("fsdp"):
        return [f"method.{recipe.method.name}.fsdp=true"]
    return [UPSTREAM_OVERRIDE] if engine.gathers_by_layer else []


def find_problems(engine: Engine, recipe: Recipe, quantizer: Quantizer | None) -> list[str]:
    """Say what keeps an engine from running a recipe, as far as no weight is needed to tell."""
    found, key = [], f"method.{recipe.method.name}"
    if recipe.method.options.get("fsdp") and not engine.is_fsdp:
        found.append(
            f"--engine {engine.name} and {key}.fsdp exclude each other: {key}.fsdp=false, or"
            " --engine fsdp2"
        )
    if engine.gathers_by_layer:
        found += [
            f"--engine {engine.name} gathers one layer's weights at a time, and speed.{part}:"
            f" {value} reads several: {UPSTREAM_OVERRIDE}"
            for part, value in vars(recipe.speed).items()
            if value in ("on", "trained")
        ]
    config = recipe.method.options.get("fsdp_config")
    if engine.is_fsdp and isinstance(config, Mapping) and config.get("version", 2) != 2:
        found.append(f"--engine fsdp2 is version 2: delete {key}.fsdp_config.version")
    if engine.cuts_weights and quantizer is not None:
        found += _uncut(engine, quantizer)
    return found


def find_missing(engine: Engine) -> list[str]:
    """Say which package an engine needs that this machine lacks."""
    if engine.package is None or find_spec(engine.package) is not None:
        return []
    return [
        f"--engine {engine.name} needs the package {engine.package}, which is not installed:"
        f" pip install {engine.package}"
    ]


def _uncut(engine: Engine, quantizer: Quantizer) -> list[str]:
    """Say why the weights of a quantized base cannot be cut, in the quantizer's own words.

    FSDP2 leaves whole what it cannot cut; ZeRO-3 cuts everything.
    """
    try:
        whole = quantizer.replicated(None)
    except UsageError as error:
        return [f"--engine {engine.name}: {error.message}; {error.hint}"]
    if whole is None or engine.is_fsdp:
        return []
    return [f"--engine {engine.name} cuts every weight, and {whole}; --engine fsdp2 or zero2"]
