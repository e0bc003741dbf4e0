"""Find plugins by name, from the metadata of installed distributions.

A plugin is a class constructed with its own `Config`; the gate (`peftkit.recipe.strict`) checks a
recipe's options against that `Config` before the plugin is constructed. Built-ins come through
peftkit's own entry points.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from inspect import get_annotations
from typing import Any

from peftkit.errors import UsageError
from peftkit.plugins.importer import Importer
from peftkit.plugins.method import Method
from peftkit.plugins.parts import Adapter, Exporter, Merge, Reward, Scheduler, Source, Task
from peftkit.plugins.quantizer import Quantizer

_BASES: dict[str, type] = {
    "sources": Source,
    "tasks": Task,
    "adapters": Adapter,
    "methods": Method,
    "quantizers": Quantizer,
    "merges": Merge,
    "exporters": Exporter,
    "rewards": Reward,
    "importers": Importer,
    "schedulers": Scheduler,
}
GROUPS = tuple(_BASES)


@dataclass(frozen=True)
class PluginInfo:
    """Describe a plugin by what its distribution's metadata says; nothing is imported."""

    name: str
    group: str
    distribution: str
    version: str
    value: str
    """`module:Class`"""
    problem: str | None = None
    """Why it cannot be picked: another plugin has its name."""

    def to_json(self) -> dict[str, str | None]:
        """Return plain data."""
        return asdict(self)


_BUILTINS_ONLY: ContextVar[bool] = ContextVar("builtins_only", default=False)
_OURS = "peftkit"


@contextmanager
def only_builtins() -> Iterator[None]:
    """Leave every plugin that peftkit does not ship out of sight (`--no-plugins`)."""
    token = _BUILTINS_ONLY.set(True)
    try:
        yield
    finally:
        _BUILTINS_ONLY.reset(token)


def available(group: str) -> list[PluginInfo]:
    """List a group's plugins by name from metadata alone, unusable ones with their problem."""
    entries = _entries(group)
    owners: dict[str, list[str]] = {}
    for entry in entries:
        owners.setdefault(entry.name, []).append(_owner(entry))
    return [
        PluginInfo(
            name=entry.name,
            group=group,
            distribution=_owner(entry),
            version=entry.dist.version if entry.dist else "",
            value=entry.value,
            problem=_clash(entry, owners[entry.name]),
        )
        for entry in sorted(entries, key=lambda entry: (entry.name, _owner(entry) != _OURS))
    ]


def all_plugins() -> list[PluginInfo]:
    """List the plugins of every group."""
    return [info for group in GROUPS for info in available(group)]


def plugin_names(group: str) -> list[str]:
    """Name a group's plugins, for suggestions."""
    return sorted({entry.name for entry in _entries(group)})


def find(group: str, name: str) -> Any:
    """Import and return the plugin class that a recipe names.

    A built-in wins over any other package's plugin of its name.

    Raises:
        UsageError: no plugin has the name, two packages claim it, its import fails or a member
            is missing; names the distribution.
    """
    found = [entry for entry in _entries(group) if entry.name == name]
    found = [entry for entry in found if _owner(entry) == _OURS] or found
    noun = group.removesuffix("s")
    if not found:
        raise UsageError(f"there is no {noun} {name!r}", hint=f"peftkit plugins lists the {group}")
    if len(found) > 1:
        owners = " and ".join(sorted(_owner(entry) for entry in found))
        raise UsageError(
            f"the {noun} {name!r} is claimed by {owners}",
            hint="uninstall one of them, or load built-ins only with --no-plugins",
        )
    return _load(found[0], group)


def _load(entry: metadata.EntryPoint, group: str) -> Any:
    where = f"the plugin {entry.name!r} ({entry.value}) of {_owner(entry)}"
    try:
        plugin = entry.load()
    except Exception as error:
        # Whatever a foreign module raises while it is imported, its owner is the one to name.
        raise UsageError(
            f"{where} cannot be imported: {type(error).__name__}: {error}",
            hint=f"update or uninstall {_owner(entry)}, or use --no-plugins",
        ) from error
    problem = problem_of(plugin, group)
    if problem:
        raise UsageError(f"{where} {problem}", hint=f"docs/plugins.md says what {group} need")
    return plugin


def problem_of(plugin: Any, group: str) -> str:
    """Say why a loaded object is no plugin of a group; empty for one that is."""
    base = _BASES[group]
    if not isinstance(plugin, type):
        return "is not a class"
    missing = missing_members(plugin, group)
    lack = f"lacks {', '.join(missing)}" if missing else ""
    if issubclass(plugin, base):
        return lack
    return f"is no subclass of peftkit.plugins.{base.__name__}{lack and ', and ' + lack}"


def missing_members(plugin: type, group: str) -> list[str]:
    """Name what a class lacks to be a plugin of a group: what the base class gives no default."""
    base: Any = _BASES[group]
    stated = [
        name for kind in base.__mro__ for name in get_annotations(kind) if not hasattr(base, name)
    ]
    missing = [name for name in stated if not hasattr(plugin, name)]
    undone = [
        name for name in sorted(base.__abstractmethods__)
        if getattr(plugin, name, None) in (None, getattr(base, name))
    ]  # fmt: skip
    return [*missing, *undone]


def _entries(group: str) -> list[metadata.EntryPoint]:
    if group not in GROUPS:
        raise ValueError(f"{group!r} is not one of {GROUPS}")
    entries = [e for e in _scan(tuple(sys.path)) if e.group == f"{_OURS}.{group}"]
    if _BUILTINS_ONLY.get():
        entries = [entry for entry in entries if _owner(entry) == _OURS]
    return entries


@cache
def _scan(path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    """Read the entry points of our groups from every distribution on a search path."""
    seen: set[str] = set()
    found: list[metadata.EntryPoint] = []
    for dist in metadata.distributions(path=list(path)):
        # Parsing every distribution's entry points takes ten times as long as looking for ours.
        text = dist.read_text("entry_points.txt")
        if text is None or f"[{_OURS}." not in text:
            continue
        # The first one of a name hides those further down the path, as for imports.
        name = _owner_name(dist)
        if name not in seen:
            seen.add(name)
            found.extend(
                entry for entry in dist.entry_points if entry.group.startswith(f"{_OURS}.")
            )
    return tuple(found)


@cache
def _owner_name(dist: metadata.Distribution) -> str:
    # Parsing all headers takes 20 times as long as finding the one that is wanted.
    match = re.search(r"^Name: (.+)$", dist.read_text("METADATA") or "", re.MULTILINE)
    return match[1].strip() if match else dist.metadata["Name"]


def _owner(entry: metadata.EntryPoint) -> str:
    return _owner_name(entry.dist) if entry.dist else "an unknown distribution"


def _clash(entry: metadata.EntryPoint, owners: Sequence[str]) -> str | None:
    others = [owner for owner in owners if owner != _owner(entry)]
    if not others or _owner(entry) == _OURS:
        return None
    if _OURS in others:
        return "peftkit's own plugin has this name and wins"
    return f"claimed by {' and '.join(others)} too"
