"""What an option may be: type hints as plain data that is checked without the class behind it."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DTYPES = ("float32", "bfloat16", "float16", "float64", "int8", "uint8")
"""What a hint `torch.dtype` takes: names that `getattr(torch, name)` resolves."""

_PLAIN = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", Path: "path"}
_LISTS = (
    list,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Set,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


@dataclass(frozen=True)
class Kind:
    """Describe the values that an option takes."""

    name: str
    """`any str int float bool null path`, `list mapping tuple union choice record pattern`,
    or `object` for what YAML cannot write."""
    items: tuple[Kind, ...] = ()
    """Of a list or mapping its one element kind; of a tuple or union each member."""
    choices: tuple[Any, ...] = ()
    record: str = ""
    """`module:Class` of a nested config."""
    pattern: str = ""
    """Regular expression that the whole text matches."""

    def to_json(self) -> Any:
        """Return the compact form that caches hold."""
        if self.name in ("list", "mapping"):
            return {self.name: self.items[0].to_json()}
        if self.name in ("tuple", "union"):
            return {self.name: [item.to_json() for item in self.items]}
        if self.name == "choice":
            return {"choice": list(self.choices)}
        if self.name in ("record", "pattern"):
            return {self.name: self.record or self.pattern}
        return self.name

    @classmethod
    def from_json(cls, form: Any) -> Kind:
        """Undo `to_json`."""
        if isinstance(form, str):
            return cls(form)
        ((name, content),) = form.items()
        if name in ("list", "mapping"):
            return cls(name, (cls.from_json(content),))
        if name in ("tuple", "union"):
            return cls(name, tuple(cls.from_json(item) for item in content))
        if name == "choice":
            return cls(name, choices=tuple(content))
        return cls(name, record=content) if name == "record" else cls(name, pattern=content)

    def __str__(self) -> str:
        """Say it as an error does: `int`, `list of str`, `one of 'a', 'b'`."""
        spoken = {
            "path": "a path",
            "object": "a Python object, which a recipe cannot hold",
            "tuple": f"a list of {len(self.items)} ({', '.join(map(str, self.items))})",
            "choice": f"one of {', '.join(show(choice) for choice in self.choices)}",
            "union": " or ".join(map(str, self.items)),
            "record": f"a mapping of {self.record.rpartition(':')[2]}'s keys",
            "pattern": f"text like {self.pattern}",
        }
        if self.record.endswith(":Choice"):
            return "a mapping with one key"
        if self.name in ("list", "mapping"):
            item = self.items[0]
            if item == ANY:
                return f"a {self.name}"
            return f"a {self.name} of {f'({item})' if item.name == 'union' else item}"
        return spoken.get(self.name, self.name)


ANY = Kind("any")
NULL = Kind("null")


def show(value: Any) -> str:
    """Show a value as YAML would write it, cut to what fits on a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return show(value.value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_ORDER = (
    "bool",
    "int",
    "float",
    "str",
    "path",
    "choice",
    "pattern",
    "list",
    "tuple",
    "mapping",
    "record",
    "object",
    "null",
)


def union(*members: Kind) -> Kind:
    """Join kinds, flat, without repetition, in one order.

    The order of a hint's members is no guide: typing hands out `Union[str, int]` for a later
    `Union[int, str]`.
    """
    flat: list[Kind] = []
    for member in members:
        for item in member.items if member.name == "union" else (member,):
            if item not in flat:
                flat.append(item)
    if ANY in flat:
        return ANY
    writable = [item for item in flat if item.name != "object"]
    flat = writable if writable and writable != [NULL] else flat
    if any(item.name == "record" for item in flat):
        # peft writes `LoftQConfig | dict`, and means a mapping of that config's keys.
        flat = [item for item in flat if item != Kind("mapping", (ANY,))]
    ordered = sorted(flat, key=lambda item: (_ORDER.index(item.name), str(item)))
    return ordered[0] if len(ordered) == 1 else Kind("union", tuple(ordered))


def from_hint(hint: Any) -> Kind:
    """Read a resolved type hint."""
    if hint in (Any, object) or isinstance(hint, (str, typing.TypeVar)):
        return ANY
    if hint is None or hint in _PLAIN:
        return Kind(_PLAIN[type(None) if hint is None else hint])
    if isinstance(hint, typing.NewType):
        return from_hint(hint.__supertype__)
    origin = typing.get_origin(hint)
    return _from_class(hint) if origin is None else _from_generic(hint, origin)


def _from_class(hint: Any) -> Kind:
    if typing.is_typeddict(hint) or hint in _MAPPINGS:
        return Kind("mapping", (ANY,))
    if hint in _LISTS or hint is tuple:
        return Kind("list", (ANY,))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return Kind("choice", choices=tuple(member.value for member in hint))
    name = f"{getattr(hint, '__module__', '')}:{getattr(hint, '__qualname__', '')}"
    if name == "torch:dtype":
        return Kind("choice", choices=DTYPES)
    if dataclasses.is_dataclass(hint):
        return Kind("record", record=name)
    is_path = isinstance(hint, type) and issubclass(hint, (Path, os.PathLike))
    return Kind("path" if is_path else "object")


def _from_generic(hint: Any, origin: Any) -> Kind:
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        members = [from_hint(argument) for argument in arguments]
        # transformers writes `IntervalStrategy | str`: the text is the enum's value, not any text.
        if any(isinstance(a, type) and issubclass(a, enum.Enum) for a in arguments):
            members = [member for member in members if member.name != "str"]
        return union(*members)
    if origin is typing.Literal:
        texts = tuple(argument for argument in arguments if argument is not None)
        literal = Kind("choice", choices=texts)
        return union(literal, NULL) if None in arguments else literal
    if origin is tuple and Ellipsis not in arguments:
        return Kind("tuple", tuple(from_hint(argument) for argument in arguments))
    wrappers = (typing.Annotated, typing.ClassVar, typing.Required, typing.NotRequired)
    inner = from_hint(arguments[-1 if origin in _MAPPINGS else 0])
    if origin in wrappers:
        return inner
    if origin in _MAPPINGS:
        return Kind("mapping", (inner,))
    return Kind("list", (inner,)) if origin is tuple or origin in _LISTS else Kind("object")


def matches(value: Any, kind: Kind) -> bool:
    """Tell whether a value has this kind, not looking into nested configs.

    An int is a fine float; a bool is neither; infinities and NaN are never fine.
    """
    return _CHECKS[kind.name](value, kind)


def is_number(value: Any) -> bool:
    """Tell whether a value is an int or a float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_is_finite(item) for item in value.values())
    return not isinstance(value, (list, tuple)) or all(_is_finite(item) for item in value)


def _matches_tuple(value: Any, kind: Kind) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != len(kind.items):
        return False
    return all(matches(item, member) for item, member in zip(value, kind.items, strict=True))


_CHECKS: Mapping[str, Callable[[Any, Kind], bool]] = {
    "any": lambda value, _: _is_finite(value),
    "object": lambda _, __: False,
    "null": lambda value, _: value is None,
    "bool": lambda value, _: isinstance(value, bool),
    "int": lambda value, _: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value, _: is_number(value) and math.isfinite(value),
    "str": lambda value, _: isinstance(value, str),
    "path": lambda value, _: isinstance(value, str) and bool(value),
    "pattern": lambda value, kind: (
        isinstance(value, str) and re.fullmatch(kind.pattern, value) is not None
    ),
    "choice": lambda value, kind: any(
        value == choice and type(value) is type(choice) for choice in kind.choices
    ),
    "record": lambda value, _: isinstance(value, Mapping),
    "union": lambda value, kind: any(matches(value, item) for item in kind.items),
    "mapping": lambda value, kind: (
        isinstance(value, Mapping) and all(matches(item, kind.items[0]) for item in value.values())
    ),
    "list": lambda value, kind: (
        isinstance(value, (list, tuple)) and all(matches(item, kind.items[0]) for item in value)
    ),
    "tuple": _matches_tuple,
}


def to_json_schema(kind: Kind, records: Mapping[str, str]) -> dict[str, Any]:
    """Return a JSON Schema of this kind.

    Args:
        records: `module:Class` of a nested config -> its name under `$defs`.
    """
    plain = {
        "str": "string",
        "path": "string",
        "int": "integer",
        "float": "number",
        "bool": "boolean",
        "null": "null",
    }
    if kind.name in plain:
        return {"type": plain[kind.name]}
    items = [to_json_schema(item, records) for item in kind.items]
    if kind.name == "record":
        name = records.get(kind.record)
        return {"$ref": f"#/$defs/{name}"} if name else {"type": "object"}
    first = items[0] if items else {}
    schemas: dict[str, dict[str, Any]] = {
        "choice": {"enum": list(kind.choices)},
        "pattern": {"type": "string", "pattern": f"^(?:{kind.pattern})$"},
        "list": {"type": "array", "items": first},
        "mapping": {"type": "object", "additionalProperties": first},
        "tuple": {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)},
        "union": {"anyOf": items},
    }
    return schemas.get(kind.name, {})
