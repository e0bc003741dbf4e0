"""Write the section `data` as plain data, with every default of its plugins filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from peftkit.recipe.schema import Choice, DataSection


def plain_data(data: DataSection, configs: Mapping[str, Any]) -> dict[str, Any]:
    """Return where rows come from, every default filled in."""

    def filled(key: str, choice: Choice) -> dict[str, Any]:
        return {choice.name: _filled(configs[key], choice)}

    sources: Any = []
    for part in data.parts:
        one = filled(part.key, part.source)
        if data.is_list:
            one["weight"] = part.weight
        if part.task_key != "data.task":
            one["task"] = filled(part.task_key, part.task)
        if part.splits != data.splits:
            one["splits"] = dict(part.splits)
        sources.append(one)
    if not data.is_list:
        (sources,) = sources
    plain = {"source": sources, "splits": dict(data.splits)}
    if "data.task" in configs:
        plain["task"] = filled("data.task", data.task)
    plain |= {"audit": asdict(data.audit), "rows": asdict(data.rows)}
    return {**plain, "dialogue": asdict(data.dialogue)}


def _filled(config: Any, choice: Choice) -> Any:
    """Return a plugin's options, defaults included where its config is a dataclass."""
    if is_dataclass(config) and not isinstance(config, type):
        return {item.name: getattr(config, item.name) for item in fields(config)}
    return dict(choice.options)
