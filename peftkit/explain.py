"""Explain any key of a recipe, ours or a library's: the verb `peftkit explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from peftkit.embedded.named_templates import named_templates, template_names
from peftkit.errors import UsageError
from peftkit.plugins import available, find, plugin_names
from peftkit.plugins.rendering import Rendering
from peftkit.plugins.speed import Speed
from peftkit.recipe.docstrings import field_docs, first_paragraph, first_sentence
from peftkit.recipe.json_schema import json_schema
from peftkit.recipe.kinds import show
from peftkit.recipe.schema import (
    AuditSection,
    DataSection,
    EarlyStoppingSection,
    EvaluateSection,
    FullSection,
    ModelSection,
    PerEpochSection,
    RowsSection,
    StopAboveSection,
    TokenizerAt,
)
from peftkit.recipe.sections import SECTIONS, TOKENIZERS
from peftkit.recipe.signatures import (
    Option,
    Signature,
    model_config_classes,
    signature_of,
)
from peftkit.recipe.strict import bound_of, kind_of, suggest
from peftkit.recipe.tables import OWNED, owned_by
from peftkit.recipe.yaml_file import join, split

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Explanation", "Member", "explain", "json_schema", "render"]

PLUGIN_KEYS = {
    "data.source": "sources",
    "data.task": "tasks",
    "adapter": "adapters",
    "method": "methods",
    "model.quantize": "quantizers",
}
"""Key that holds a one-key mapping -> the group that its name comes from."""


@dataclass(frozen=True)
class Member:
    """Describe what stands below a key."""

    name: str
    type: str
    default: str
    doc: str


@dataclass(frozen=True)
class Explanation:
    """Say what a key is, what it takes and where it comes from."""

    key: str
    doc: str
    type: str = ""
    """What it takes, as errors say it; empty for a section or a plugin."""
    default: str | None = None
    """As YAML writes it; None when it is required or not a value."""
    origin: str = ""
    """The class and version, or the distribution, that it belongs to."""
    members: tuple[Member, ...] = ()
    """The keys below it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def explain(key: str = "recipe") -> Explanation:
    """Explain a dotted key, a plugin's name or a group.

    Raises:
        UsageError: a recipe has no such key; suggests the nearest.
    """
    if key in ("recipe", ""):
        members = tuple(Member(name, "", "", doc) for name, doc in SECTIONS.items())
        return Explanation("recipe", "A recipe is a YAML mapping of sections.", members=members)
    try:
        parts = split(key)
    except ValueError:
        raise UsageError(f"{key!r} is not a dotted key", hint="e.g. adapter.lora.r") from None
    if parts[0] not in SECTIONS:
        return explain(_home(key, parts))
    return _walk(parts)


def _home(key: str, parts: Sequence[str]) -> str:
    """Find where a bare plugin's name, group or unknown first word belongs."""
    rest = "".join(f".{part}" for part in parts[1:])
    for place, group in PLUGIN_KEYS.items():
        if parts[0] in (group, place.rpartition(".")[2]):
            return place + rest
        if parts[0] in plugin_names(group):
            return f"{place}.{parts[0]}{rest}"
    words = [*SECTIONS, "recipe", *(name for g in PLUGIN_KEYS.values() for name in plugin_names(g))]
    homes = [
        f"{place}.{name}.{key}"
        for place, group in (("method", "methods"), ("adapter", "adapters"))
        for name in ("sft", "lora")
        if name in plugin_names(group) and key in _plugin_signature(group, name).options
    ]
    hint = f"did you mean {homes[0]}?" if homes else suggest(parts[0], words)
    raise UsageError(f"a recipe has no key {key!r}", hint=hint or "peftkit explain recipe")


def _walk(parts: Sequence[str]) -> Explanation:
    key = ".".join(join("", part) for part in parts)
    for depth in (2, 1):
        place = ".".join(parts[:depth])
        rest = list(parts[depth:])
        if place in PLUGIN_KEYS:
            return _explain_plugin(place, PLUGIN_KEYS[place], rest)
        if place in _PLACES:
            return _PLACES[place](place, rest)
    raise UsageError(f"a recipe has no key {key!r}", hint=_nearest(parts[0], parts[1]))


def _nearest(place: str, name: str) -> str:
    known = [member.name for member in explain(place).members]
    close = get_close_matches(name, known, n=1)
    return f"did you mean {join(place, close[0])}?" if close else f"peftkit explain {place}"


def _explain_plugin(place: str, group: str, rest: list[str]) -> Explanation:
    if not rest:
        infos = [info for info in available(group) if info.problem is None]
        members = tuple(_plugin_member(group, info.name) for info in infos)
        doc = f"{SECTIONS.get(place, place)}: one of the {group}."
        return Explanation(place, doc, members=members)
    name = rest[0]
    if place == "adapter" and name == "from":
        return Explanation(
            "adapter.from", "Continue an existing adapter: a folder or a run.", "str"
        )
    if name not in plugin_names(group):
        raise UsageError(
            f"there is no {group.removesuffix('s')} {name!r}",
            hint=suggest(name, plugin_names(group)) or f"peftkit explain {place}",
        )
    info = next(info for info in available(group) if info.name == name)
    plugin = find(group, name)
    signature = _plugin_signature(group, name)
    doc = first_paragraph(plugin.__doc__)
    if not rest[1:] and not signature.options:
        return Explanation(join(place, name), doc, origin=f"{info.distribution} {info.version}")
    owned = owned_by(group, plugin)
    origin = signature.title if signature.is_native else f"{info.distribution} {info.version}"
    return _explain_class(
        join(place, name), signature, rest[1:], doc=doc, owned=owned, origin=origin
    )


def _plugin_member(group: str, name: str) -> Member:
    try:
        doc = first_paragraph(find(group, name).__doc__)
    except UsageError as error:
        doc = error.message
    return Member(name, "", "", doc)


def _plugin_signature(group: str, name: str) -> Signature:
    config = find(group, name).Config
    return (
        Signature(f"peftkit:{name}", {})
        if config is None
        else signature_of(config, documented=True)
    )


def _explain_class(  # noqa: PLR0913 - what an explanation is made of
    key: str,
    signature: Signature,
    rest: Sequence[str],
    *,
    doc: str = "",
    owned: Mapping[str, str] | None = None,
    origin: str = "",
) -> Explanation:
    """Explain a class, or one of its options, or one of a nested config's."""
    owned = owned or {}
    own_docs = _own_docs(signature)
    origin = origin or (signature.title if signature.is_native else "peftkit")
    if not rest:
        members = tuple(
            _member(signature, option, own_docs.get(option.name, option.doc))
            for option in signature.options.values()
            if option.name not in owned
        )
        return Explanation(key, doc or signature.doc, origin=origin, members=members)
    name, *below = rest
    path = join(key, name)
    if name in owned:
        text = f"peftkit sets this key itself; instead: {owned[name]}."
        return Explanation(path, text, origin=origin)
    option = signature.options.get(name)
    if option is None:
        hint = suggest(name, list(signature.options)) or f"peftkit explain {key}"
        raise UsageError(f"{key} has no key {name!r}", hint=hint)
    kind = kind_of(signature, option)
    records = [item.record for item in (kind, *kind.items) if item.record]
    if below or (records and kind.name == "record"):
        if not records:
            raise UsageError(f"{path} has no keys of its own", hint=f"peftkit explain {path}")
        return _explain_class(path, signature_of(records[0], documented=True), below)
    member = _member(signature, option, own_docs.get(name, option.doc))
    return Explanation(
        path,
        member.doc,
        member.type,
        None if option.is_required else member.default,
        origin,
        _nested(records),
    )


def _nested(records: Sequence[str]) -> tuple[Member, ...]:
    if not records:
        return ()
    signature = signature_of(records[0], documented=True)
    return tuple(_member(signature, option, option.doc) for option in signature.options.values())


def _member(signature: Signature, option: Option, doc: str) -> Member:
    kind = str(kind_of(signature, option))
    bound = bound_of(option.name)
    is_number = "int" in kind or "float" in kind
    if option.is_required:
        default = "required"
    else:
        default = show(option.default) if option.has_default else ""
    return Member(option.name, f"{kind}, {bound}" if bound and is_number else kind, default, doc)


def _own_docs(signature: Signature) -> dict[str, str]:
    """Return the attribute docstrings of a class that is ours or a plugin's."""
    if signature.is_native:
        return {}
    from peftkit.recipe.signatures import load_class

    try:
        return field_docs(load_class(signature.reference))
    except UsageError:
        return {}


def _section(cls: type) -> Callable[[str, list[str]], Explanation]:
    def explain_section(place: str, rest: list[str]) -> Explanation:
        return _explain_class(place, signature_of(cls), rest, doc=SECTIONS.get(place, ""))

    return explain_section


def _explain_memory(place: str, rest: list[str]) -> Explanation:
    doc = "The run refuses to start above this (device memory; resident memory on a CPU)."
    budget = Member("budget", "a size like 6 GiB", "null", doc)
    if not rest:
        return Explanation(place, SECTIONS[place], origin="peftkit", members=(budget,))
    if rest != ["budget"]:
        raise UsageError(f"memory has no key {rest[0]!r}", hint="did you mean memory.budget?")
    return Explanation("memory.budget", doc, budget.type, "null", "peftkit")


def _explain_name(place: str, rest: list[str]) -> Explanation:
    if rest:
        raise UsageError("name has no keys of its own", hint="peftkit explain name")
    return Explanation(place, SECTIONS[place], "str", "the file's name", "peftkit")


def _explain_generation(place: str, rest: list[str]) -> Explanation:
    signature = signature_of("transformers:GenerationConfig", documented=True)
    return _explain_class(place, signature, rest, owned=OWNED["generation"])


def _explain_named(
    classes: Callable[[], Mapping[str, str | type]], owned: str
) -> Callable[[str, list[str]], Explanation]:
    """Explain a key whose one key names a class that is no plugin."""

    def explain_named(place: str, rest: list[str]) -> Explanation:
        known = classes()
        if not rest:
            members = tuple(Member(name, "", "", "") for name in known)
            doc = _own_docs(signature_of(ModelSection))[place.rpartition(".")[2]]
            return Explanation(place, doc, members=members)
        if rest[0] not in known:
            hint = suggest(rest[0], list(known)) or f"peftkit explain {place}"
            raise UsageError(f"{place} has no {rest[0]!r}", hint=hint)
        signature = signature_of(known[rest[0]], documented=True)
        path = join(place, rest[0])
        return _explain_class(path, signature, rest[1:], owned=OWNED.get(owned))

    return explain_named


def _explain_template(place: str, rest: list[str]) -> Explanation:
    if rest:
        raise UsageError(f"{place} has no keys of its own", hint=f"peftkit explain {place}")
    found = _explain_class("model", signature_of(ModelSection), ["chat_template"])
    known = named_templates()
    members = tuple(Member(name, "", "", known[name].doc) for name in template_names())
    return replace(found, members=members)


_PLACES: dict[str, Callable[[str, list[str]], Explanation]] = {
    "name": _explain_name,
    "model": _section(ModelSection),
    "model.chat_template": _explain_template,
    "model.config": _explain_named(model_config_classes, "config"),
    "model.tokenizer": _explain_named(lambda: {**TOKENIZERS, "path": TokenizerAt}, ""),
    "data": _section(DataSection),
    "data.audit": _section(AuditSection),
    "data.rows": _section(RowsSection),
    "data.dialogue": _section(Rendering),
    "early_stopping": _section(EarlyStoppingSection),
    "per_epoch": _section(PerEpochSection),
    "stop_above": _section(StopAboveSection),
    "adapter.full": _section(FullSection),
    "memory": _explain_memory,
    "speed": _section(Speed),
    "evaluate": _section(EvaluateSection),
    "evaluate.generation": _explain_generation,
}


def render(explanation: Explanation) -> RenderableType:
    """Lay an explanation out for the terminal."""
    from rich.console import Group
    from rich.text import Text

    head = Text(explanation.key, style="bold")
    if explanation.origin:
        head.append(f"  {explanation.origin}", style="dim")
    lines: list[RenderableType] = [head]
    if explanation.type:
        lines.append(Text(f"takes    {explanation.type}"))
    if explanation.type or explanation.default is not None:
        default = explanation.default
        lines.append(Text(f"default  {'none, it is required' if default is None else default}"))
    if explanation.doc:
        lines.append(Text(explanation.doc))
    if explanation.members:
        lines += [Text(), *_lay_out(explanation.members)]
    return Group(*lines)


def _lay_out(members: Sequence[Member]) -> Iterator[RenderableType]:
    """Give members that are only named a table, and those with a type a paragraph each."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    docs = {member.name: first_sentence(member.doc) for member in members}
    if not any(member.type for member in members):
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for member in members:
            table.add_row(Text(member.name, "bold"), Text(docs[member.name]))
        yield table
        return
    for member in members:
        head = Text(member.name, "bold")
        head.append(f"  {member.type}", "none")
        head.append(f", {member.default}" if member.default == "required" else "", "none")
        if member.default and member.default != "required":
            head.append(f"  = {member.default}", "dim")
        yield head
        if docs[member.name]:
            yield Padding(Text(docs[member.name]), (0, 0, 0, 4))
