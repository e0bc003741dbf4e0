"""Find the dotted key that a person means by a short or a foreign word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from peftkit.errors import PeftkitError
from peftkit.plugins import find
from peftkit.recipe.schema import DataSection, EvaluateSection, MemorySection, ModelSection
from peftkit.recipe.sections import SECTIONS
from peftkit.recipe.signatures import signature_of
from peftkit.recipe.tables import RENAMED
from peftkit.recipe.yaml_file import join

PLUGIN_SECTIONS = {"method": "methods", "adapter": "adapters"}
OWN_SECTIONS = {
    "model": ModelSection,
    "evaluate": EvaluateSection,
    "data": DataSection,
    "memory": MemorySection,
}
FOREIGN = {
    "model": "model.path",
    "model_id": "model.path",
    "output_name": "name",
    "run_name": "name",
    "bs": "per_device_train_batch_size",
    "device_batch_size": "per_device_train_batch_size",
    "eval": "evaluate.split",
    "cpu": "use_cpu",
}
"""A word that is no option's older name, yet is clear."""


def full_key(word: str, recipe: Mapping[str, Any]) -> str | None:
    """Return the dotted key that a word stands for in this recipe, or None.

    Args:
        word: `epochs`, `lr`, `sft.learning_rate`, `lora.rank`; dashes count as underscores.
        recipe: its data as written; what cannot be read in it is passed over.
    """
    parts = word.lower().replace("-", "_").split(".")
    if parts[0] in SECTIONS and len(parts) > 1:
        parts = parts[1:]
    wanted = FOREIGN.get(parts[-1], parts[-1])
    if "." in wanted or wanted in SECTIONS:
        return wanted
    homes = dict(_homes(recipe))
    for prefix, options in homes.items():
        for name in (wanted, *RENAMED.get(wanted, ())):
            if name in options:
                return join(prefix, name)
    every = {option: prefix for prefix, options in homes.items() for option in options}
    close = get_close_matches(wanted, list(every), n=1, cutoff=0.85)
    return join(every[close[0]], close[0]) if close else None


def _homes(recipe: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give each section that this recipe has, with the options it takes; the method's first."""
    for section, group in PLUGIN_SECTIONS.items():
        chosen = recipe.get(section)
        if not isinstance(chosen, Mapping) or len(chosen) != 1:
            continue
        (name,) = chosen
        try:
            config = find(group, str(name)).Config
        except PeftkitError:
            continue
        if config is not None:
            yield join(section, name), tuple(signature_of(config).options)
    for section, cls in OWN_SECTIONS.items():
        yield section, tuple(signature_of(cls).options)
