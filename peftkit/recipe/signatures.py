"""Know every option of every class, native or ours, without importing torch when it is avoidable.

A native class is named `module:Class`. Its signature comes from the table for the tested pins
that ships with peftkit, else from the user's cache, else from the class itself (which imports
the stack once and fills the cache). Either way it holds only for the installed versions.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from peftkit.errors import UsageError
from peftkit.recipe.kinds import ANY, NULL, Kind, from_hint, union
from peftkit.recipe.signature_cache import cached, installed_version, source_digest
from peftkit.system.imports import import_uncompiled, importing, leave_imports_uncollected
from peftkit.system.quiet import quiet_stack

STACK = ("peft", "transformers", "trl")
"""What imports PEFT."""


@dataclass(frozen=True)
class Option:
    """Describe one option of a class."""

    name: str
    kind: Kind
    default: Any = None
    """As plain data; meaningful only with `has_default`."""
    has_default: bool = False
    """False when the option is required, and when its default cannot be written as plain data."""
    is_required: bool = False
    doc: str = ""


@dataclass(frozen=True)
class Signature:
    """Describe a class as a recipe sees it."""

    reference: str
    """`module:Class`"""
    options: Mapping[str, Option]
    doc: str = ""
    """The class's first paragraph."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """What owns the class and its parents: distribution -> version, or module -> digest."""

    @property
    def name(self) -> str:
        """The class's name."""
        return self.reference.rpartition(":")[2]

    @property
    def title(self) -> str:
        """The class's name with its distribution's version, as errors name it."""
        root = self.reference.partition(".")[0].partition(":")[0]
        version = self.versions.get(root, "sha256:")
        return self.name if version.startswith("sha256:") else f"{self.name} ({root} {version})"

    @property
    def is_native(self) -> bool:
        """Tell whether a released library decides any of the options."""
        return any(not version.startswith("sha256:") for version in self.versions.values())

    def to_json(self) -> dict[str, Any]:
        """Return the form that caches hold."""
        options = {}
        for option in self.options.values():
            entry: dict[str, Any] = {"kind": option.kind.to_json()}
            if option.has_default:
                entry["default"] = option.default
            if option.is_required:
                entry["required"] = True
            if option.doc:
                entry["doc"] = option.doc
            options[option.name] = entry
        return {"doc": self.doc, "versions": dict(self.versions), "options": options}

    @classmethod
    def from_json(cls, reference: str, form: Mapping[str, Any]) -> Signature:
        """Undo `to_json`."""
        options = {
            name: Option(
                name,
                Kind.from_json(entry["kind"]),
                entry.get("default"),
                "default" in entry,
                entry.get("required", False),
                entry.get("doc", ""),
            )
            for name, entry in form["options"].items()
        }
        return cls(reference, options, form["doc"], form["versions"])


def signature_of(target: str | type, *, documented: bool = False) -> Signature:
    """Return the signature of a native class by reference, or of a class at hand.

    Args:
        documented: with the native docstrings, for which the class is imported once a version.

    Raises:
        UsageError: the reference names nothing that can be imported.
    """
    return _own(target) if isinstance(target, type) else _native(target, documented)


@cache
def _own(cls: type) -> Signature:
    return _extract(cls, f"{cls.__module__}:{cls.__qualname__}", {}, {})


@cache
def _native(reference: str, documented: bool) -> Signature:
    form = cached(reference, lambda: extract(reference).to_json(), documented=documented)
    return Signature.from_json(reference, form)


def model_config_classes() -> Mapping[str, str]:
    """Return every `model_type` of transformers -> its config's reference."""
    return _table("transformers:model_types")


@cache
def _table(reference: str) -> Mapping[str, str]:
    table: dict[str, str] = cached(reference, lambda: extract_table(reference))["table"]
    return table


def extract_table(reference: str) -> dict[str, Any]:
    """Import what a table is read from and return it as a cache entry."""
    version = metadata.version("transformers")
    return {"versions": {"transformers": version}, "table": TABLES[reference]()}


def _read_model_types() -> dict[str, str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return {name: f"transformers:{cls}" for name, cls in sorted(CONFIG_MAPPING_NAMES.items())}


TABLES: dict[str, Callable[[], dict[str, str]]] = {
    "transformers:model_types": _read_model_types,
}


def load_class(reference: str) -> type:
    """Import the class that `module:Class` names.

    Raises:
        UsageError: the module or the class is missing.
    """
    module, _, name = reference.partition(":")
    quiet_stack()
    try:
        with importing():
            if is_of_stack := module.partition(".")[0] in STACK:
                import_uncompiled()
            value: Any = import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
        if is_of_stack:
            leave_imports_uncollected()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{reference} cannot be imported: {error}",
            hint="peftkit doctor shows the installed stack",
        ) from error
    if not isinstance(value, type):
        raise UsageError(f"{reference} is not a class")
    return value


def extract(reference: str) -> Signature:
    """Import a native class and read its options from signature, hints, defaults and docstring."""
    from peftkit.recipe.docstrings import option_docs

    cls = load_class(reference)
    return _extract(cls, reference, option_docs(cls), _owners(cls))


def _extract(
    cls: type,
    reference: str,
    docs: Mapping[str, tuple[str, str]],
    versions: Mapping[str, str],
) -> Signature:
    from peftkit.recipe.docstrings import first_paragraph, kind_of_text

    helps, choices = _field_metadata(cls, "help"), _field_metadata(cls, "choices")
    parameters = inspect.signature(cls).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    options = {}
    for parameter in named or _attributes(cls):
        written, text = docs.get(parameter.name, ("", ""))
        kind = _kind(cls, parameter)
        if kind is None:
            kind = kind_of_text(written) if written else _kind_of_default(parameter.default)
            kind = union(kind, NULL) if parameter.default is None else kind
        if parameter.name in choices and kind == Kind("str"):
            kind = Kind("choice", choices=tuple(choices[parameter.name]))
        default, has_default = _default(cls, parameter)
        options[parameter.name] = Option(
            parameter.name,
            kind,
            default,
            has_default,
            parameter.default is parameter.empty,
            text or " ".join(str(helps.get(parameter.name, "")).split()),
        )
    return Signature(reference, options, first_paragraph(cls.__doc__), versions)


def _attributes(cls: type) -> list[inspect.Parameter]:
    """List the options of a class that takes only `**kwargs` (GenerationConfig)."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    try:
        values = vars(cls())
    except ImportError:  # QuarkConfig asks for its package even to be constructed empty
        return []
    return [
        inspect.Parameter(name, keyword, default=value)
        for name, value in values.items()
        if not name.startswith("_") and name != "transformers_version"
    ]


def _kind(cls: type, parameter: inspect.Parameter) -> Kind | None:
    hint = parameter.annotation
    if hint is parameter.empty:
        return None
    if isinstance(hint, str):
        try:
            hint = eval(hint, _namespace(cls, parameter.name))  # noqa: S307 - the class's own hint
        except (NameError, TypeError, AttributeError, SyntaxError):
            return None
    return from_hint(hint)


def _namespace(cls: type, name: str) -> dict[str, Any]:
    """Return the names that a hint written as text can mean; torch is often imported for typing."""
    merged: dict[str, Any] = {"torch": sys.modules.get("torch")}
    for owner in reversed(cls.__mro__):
        module = sys.modules.get(owner.__module__)
        merged.update(vars(module) if module else {})
    for owner in cls.__mro__:
        if name in inspect.get_annotations(owner):
            merged.update(vars(sys.modules[owner.__module__]))
            break
    return merged


def _kind_of_default(default: Any) -> Kind:
    for plain in (bool, int, float, str):
        if isinstance(default, plain):
            return Kind(plain.__name__)
    return ANY


def _default(cls: type, parameter: inspect.Parameter) -> tuple[Any, bool]:
    if parameter.default is parameter.empty:
        return None, False
    value = parameter.default
    if dataclasses.is_dataclass(cls):
        for item in dataclasses.fields(cls):
            if item.name == parameter.name and item.default_factory is not dataclasses.MISSING:
                value = item.default_factory()
    try:
        return to_plain(value), True
    except TypeError:
        return None, False


def to_plain(value: Any) -> Any:
    """Return a native value as YAML could write it.

    Raises:
        TypeError: it cannot.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    is_dtype = (type(value).__module__, type(value).__name__) == ("torch", "dtype")
    if not is_dtype and not isinstance(value, (Path, str)):
        raise TypeError(f"{value!r} is not plain data")
    return str(value).removeprefix("torch.") if is_dtype else str(value)


def _field_metadata(cls: type, entry: str) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cls):
        return {}
    fields = dataclasses.fields(cls)
    return {item.name: item.metadata[entry] for item in fields if entry in item.metadata}


def _owners(cls: type) -> dict[str, str]:
    """Return what decides this class's options: distributions with their versions, or, for code
    without a fixed version (ours, an editable install), modules with the digest of their source.
    """
    owners: dict[str, str] = {}
    for owner in cls.__mro__:
        root = owner.__module__.partition(".")[0]
        decides = {"__annotations__", "__init__"} & set(owner.__dict__)
        if root in sys.stdlib_module_names or not decides:
            continue
        # Our own code changes under one version while it is developed, so its source counts.
        names = [] if root == "peftkit" else [root]
        if names and installed_version(root) is None:
            names = metadata.packages_distributions().get(root, [])
        versions = {name: version for name in names if (version := installed_version(name))}
        owners.update(versions or {owner.__module__: source_digest(owner.__module__)})
    return dict(sorted(owners.items()))
