"""The words that an importer's table is written in, and the draft that it fills.

A table maps a key of the tool to a rule: `kept("method.learning_rate")`, `implied("...")` and so
on. Recipe keys in rules begin with the section; `method.` and `adapter.` stand for the chosen
plugin's options, so that one table serves `sft` and `dpo`, a LoRA and full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peftkit.plugins.importer import Became, Fate, Foreign, Imported

Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Rule:
    """Say what becomes of one key."""

    fate: Fate
    how: str = ""
    to: str = ""
    """The recipe's key that takes the value."""
    convert: Convert | None = None
    why_off: str = "off here too"
    """What a key says that is switched off: `false`, 0 or empty."""

    @property
    def is_said_elsewhere(self) -> bool:
        """Tell whether a function of the importer says what became of the key."""
        return self.fate is Fate.KEPT and not self.to


def kept(to: str, convert: Convert | None = None) -> Rule:
    """Take the value as it is, under the recipe's name for it."""
    return Rule(Fate.KEPT, to=to, convert=convert)


def differs(how: str, to: str = "", convert: Convert | None = None) -> Rule:
    """Take the value, whose meaning is not quite the same."""
    return Rule(Fate.DIFFERS, how, to, convert)


def implied(how: str) -> Rule:
    """Leave it out: peftkit does it anyway."""
    return Rule(Fate.IMPLIED, how)


def no_effect(how: str) -> Rule:
    """Leave it out: it changes nothing of what is trained."""
    return Rule(Fate.NO_EFFECT, how)


def unsupported(how: str) -> Rule:
    """Leave it out: it cannot be said; `how` says why and what comes nearest."""
    return Rule(Fate.UNSUPPORTED, how)


read_by_hand = Rule(Fate.KEPT)
"""A function of the importer reads it, with others, and says what became of it."""


class Converted(ValueError):  # noqa: N818 - not an error of the user's: another fate
    """Raised by a `convert` for a value that becomes something else than its key's rule says."""

    def __init__(self, fate: Fate, how: str) -> None:
        super().__init__(how)
        self.fate = fate
        self.how = how


def number(value: Any) -> Any:
    """Read a number that stands in quotes: tools convert those."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value.replace("_", ""))
            except ValueError:
                continue
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Converted(Fate.UNSUPPORTED, f"{value!r} is no number")
    return value


def numeric(value: Any) -> int | float | None:
    """Read a number, or None where it is none."""
    try:
        found: int | float = whole(value)
    except Converted:
        return None
    return found


def whole(value: Any) -> Any:
    """Read a whole number, which may be written `16.0`."""
    value = number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def revision(value: Any) -> Any:
    """Read a revision, of which `main` is the one that is read anyway."""
    if value == "main":
        raise Converted(Fate.IMPLIED, "it is what is read")
    return value


def listed(value: Any, *, separator: str = "") -> list[Any]:
    """Read a list, which may be one value alone, or a text with a separator in it."""
    if isinstance(value, str) and separator:
        return [part.strip() for part in value.split(separator) if part.strip()]
    if isinstance(value, list):
        return value
    return [] if value is None or isinstance(value, bool | int | float) else [value]


def mapped(value: Any) -> Mapping[str, Any]:
    """Read a mapping; empty where it is none."""
    return value if isinstance(value, Mapping) else {}


def flattened(foreign: Foreign) -> Foreign:
    """Write a config's nested mappings as dotted keys: `optimizer.lr`."""
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        else:
            found[key] = value

    walk(foreign.data, "")
    return replace(foreign, data=found)


def is_off(value: Any) -> bool:
    """Tell whether a value switches its key off."""
    if isinstance(value, Mapping):
        return all(inner is None or is_off(inner) for inner in value.values())
    words = ("", "false", "no", "none", "null", "off", "0")
    return not value or (isinstance(value, str) and value.strip().lower() in words)


def switch(value: Any) -> bool:
    """Read a switch, which may be written as text."""
    return not is_off(value)


@dataclass
class Draft:
    """Gather a recipe while a config is read key by key; how it grows is each importer's."""

    foreign: Foreign
    method: str = "sft"
    adapter: str | None = "lora"
    """The adapter's plugin; None for full fine-tuning."""
    recipe: dict[str, Any] = field(default_factory=dict)
    fates: list[Became] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a key's value, the default where it is absent or null."""
        value = self.foreign.data.get(key)
        return default if value is None else value

    def spelled(self, to: str) -> str:
        """Return the recipe's whole key: with the plugin's name in it."""
        section, dot, rest = to.partition(".")
        plugin = {"method": self.method, "adapter": self.adapter}.get(section)
        return f"{section}.{plugin}.{rest}" if plugin and dot else to

    def has(self, to: str) -> bool:
        """Tell whether the recipe has a key."""
        node: Any = self.recipe
        for part in self.spelled(to).split("."):
            if not isinstance(node, Mapping) or part not in node:
                return False
            node = node[part]
        return True

    def put(self, to: str, value: Any, remark: str = "") -> None:
        """Set a key of the recipe."""
        *parents, last = self.spelled(to).split(".")
        node = self.recipe
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
        if remark:
            self.remarks[self.spelled(to)] = remark

    def say(self, key: str, fate: Fate, how: str = "", value: Any = None) -> None:
        """Note what became of a key; the first word counts."""
        is_absent = value is None and self.foreign.data.get(key) is None
        if key in self.said or is_absent:
            return
        self.said.add(key)
        found = self.foreign.data.get(key) if value is None else value
        self.fates.append(Became(key, found, fate, how, self.foreign.lines.get(key)))

    def read(self, key: str, convert: Convert) -> Any:
        """Return a key's value, converted; None where it is absent or cannot be, which is said."""
        value = self.get(key)
        if value is None:
            return None
        try:
            return convert(value)
        except Converted as other:
            self.say(key, other.fate, other.how)
            return None

    def keep(self, key: str, to: str, value: Any, remark: str = "") -> None:
        """Set a key of the recipe, and say that a key of the tool is kept there."""
        self.put(to, value, remark)
        self.say(key, Fate.KEPT, self.spelled(to))

    def take(self, key: str, to: str, convert: Convert, remark: str = "") -> None:
        """Keep a key's value, converted, unless it cannot be."""
        value = self.read(key, convert)
        if value is not None:
            self.keep(key, to, value, remark)

    def default(self, key: str, to: str, value: Any, remark: str = "") -> None:
        """Write out what the tool means where its config is silent."""
        if not self.has(to):
            self.put(to, value, remark or f"{key}: the default there")
            self.say(key, Fate.DEFAULT, self.spelled(to), value)

    def recall(self, to: str, why: str) -> None:
        """Say that what was kept under a key of the recipe is implied: the tool does not use it."""
        spelled = self.spelled(to)
        for at, one in enumerate(self.fates):
            if one.how == spelled and one.fate is Fate.DEFAULT:
                del self.fates[at]
                return
            if one.how.partition(":")[0] == spelled:
                self.fates[at] = replace(one, fate=Fate.IMPLIED, how=why)

    def apply(self, table: Mapping[str, Rule]) -> None:
        """Let the table say what becomes of each key that nothing has been said of."""
        for key, value in self.foreign.data.items():
            rule = table.get(key)
            if rule is None or key in self.said or value is None:
                continue
            if not rule.is_said_elsewhere:
                self._apply(key, value, rule)

    def _apply(self, key: str, value: Any, rule: Rule) -> None:
        if rule.to.startswith("adapter.") and self.adapter is None:
            self.say(key, Fate.NO_EFFECT, "nothing is adapted: every weight is trained")
            return
        if not rule.to:
            off = rule.fate is not Fate.NO_EFFECT and is_off(value)
            self.say(key, Fate.IMPLIED if off else rule.fate, rule.why_off if off else rule.how)
            return
        try:
            value = rule.convert(value) if rule.convert else value
        except Converted as other:
            self.say(key, other.fate, other.how)
            return
        differs_ = rule.fate is Fate.DIFFERS
        self.put(rule.to, value, rule.how if differs_ else "")
        spelled = self.spelled(rule.to)
        self.say(key, rule.fate, f"{spelled}: {rule.how}" if differs_ else spelled)

    def finish(
        self, table: Mapping[str, Rule], keys: Iterable[str], unknown: str, nearest: str = ""
    ) -> Imported:
        """Say the rest: keys of the schema that no rule knows, and those it does not have.

        Args:
            unknown: what the tool does with a key that is not in its schema.
            nearest: what to say of one that is.
        """
        schema = {*keys, *table}
        self.recipe.setdefault("method", {}).setdefault(self.method, {})
        for key, value in self.foreign.data.items():
            if key in self.said or value is None:
                continue
            if key not in schema:
                self.say(key, Fate.IGNORED, unknown)
            elif is_off(value):
                self.say(key, Fate.IMPLIED, "off here too")
            else:
                self.say(key, Fate.UNSUPPORTED, nearest or "a recipe has no key for it")
        return Imported(self.recipe, tuple(self.fates), self.remarks)
