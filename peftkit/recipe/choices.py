"""Read a choice of a plugin, and options of our own sections, through the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftkit.errors import UsageError
from peftkit.plugins import find, plugin_names
from peftkit.recipe.kinds import show
from peftkit.recipe.schema import Choice
from peftkit.recipe.signatures import Signature, signature_of
from peftkit.recipe.strict import Gate, suggest
from peftkit.recipe.tables import owned_by
from peftkit.recipe.yaml_file import join


def pick(gate: Gate, key: str, value: Any, noun: str) -> Choice | None:
    """Read a one-key mapping: the plugin's name and its options."""
    if isinstance(value, Mapping) and len(value) > 1:
        left = {
            name: one for name, one in value.items() if not gate.is_nulled(join(key, name), one)
        }
        value = left or value
    if isinstance(value, str):
        gate.refuse(key, f"expected a one-key mapping, got {value!r}", f"write {{{value}: {{}}}}")
        return None
    if not isinstance(value, Mapping) or len(value) != 1:
        names = list(value) if isinstance(value, Mapping) else []
        added = [name for name in names if join(key, name) not in gate.lines]
        if len(names) > 1 and added:
            gate.refuse_override(
                join(key, added[0]),
                f"{key} has {', '.join(value)}, and takes one {noun}",
                f"replace it: {key}={{{added[0]}: {{...}}}}",
            )
            return None
        got = ", ".join(names) or show(value)
        hint = "keep one of them" if names else None
        gate.refuse(key, f"expected a mapping with one key, the {noun}'s name, got {got}", hint)
        return None
    ((name, options),) = value.items()
    return Choice(name, {} if options is None else options)


def check_plugin(gate: Gate, key: str, value: Any, group: str) -> Choice | None:
    """Check a plugin's options against its Config; return them with absolute paths."""
    noun = group.removesuffix("s")
    choice = pick(gate, key, value, noun)
    if choice is None:
        return None
    path = join(key, choice.name)
    known = plugin_names(group)
    if choice.name not in known:
        suggestion = suggest(choice.name, known) or f"the {group} are {', '.join(known)}"
        gate.refuse(path, f"there is no {noun} {choice.name!r}", suggestion)
        return None
    try:
        plugin = find(group, choice.name)
        signature = None if plugin.Config is None else signature_of(plugin.Config)
    except UsageError as error:
        gate.refuse(path, error.message, error.hint)
        return None
    if signature is None:
        if choice.options:
            gate.refuse(path, f"{choice.name} takes no options", "write the bare word")
        return choice
    gate.elsewhere[path] = tuple(signature.options)
    options = gate.check_options(path, choice.options, signature, owned=owned_by(group, plugin))
    return Choice(choice.name, _absolute(gate, path, options, signature))


def _absolute(
    gate: Gate, path: str, options: Mapping[str, Any], signature: Signature
) -> dict[str, Any]:
    return {
        name: gate.resolve_paths(join(path, name), value, signature.options[name].kind)
        for name, value in options.items()
    }


def check_own(
    gate: Gate, key: str, value: Any, cls: type, skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Check one of our own sections against its dataclass."""
    if value is None:
        value = {}
    signature = signature_of(cls)
    gate.elsewhere[key] = tuple(signature.options)
    return gate.check_options(key, value, signature, skip=skip)
