"""Write the recipe for another tool's config so that `check` takes it, and what became of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftkit.errors import Problem, RecipeError, UsageError
from peftkit.plugins import plugin_names
from peftkit.plugins.importer import Became, Fate, Imported
from peftkit.recipe.foreign import SUFFIXES, Recognised, recognise
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import dump_inline, join, split
from peftkit.rundir.paths import write_atomically

ORDER = (
    "name",
    "model",
    "data",
    "adapter",
    "method",
    "early_stopping",
    "stop_above",
    "memory",
    "speed",
    "evaluate",
)
_HERE = ("model.path", "adapter.from", "data.source", "name")
"""Keys whose problems are about what lies on this machine, not about what the config says."""
_LACKS = ("is not installed", "needs the package")
_MAX_WIDTH = 88
_ROUNDS = 4


@dataclass(frozen=True)
class Written:
    """Hold a written recipe, what became of every key, and what `check` still says."""

    file: Path
    text: str
    title: str
    version: str
    fates: tuple[Became, ...]
    unset: int
    """Keys without a value."""
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    source: Path

    @property
    def counts(self) -> Counter[Fate]:
        """Count keys by what became of them."""
        return Counter(one.fate for one in self.fates)

    def __str__(self) -> str:
        """Return the lines that the command prints."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.source}: a config of {self.title} (keys as of {self.version})"
        yield from _table(self.fates)
        if self.unset:
            has = "key has" if self.unset == 1 else "keys have"
            yield f"{self.unset} {has} no value: the defaults there"
        yield from self.notes
        counted = ", ".join(f"{self.counts[fate]} {fate}" for fate in Fate if self.counts[fate])
        yield f"{len(self.fates)} {'key' if len(self.fates) == 1 else 'keys'}: {counted}"
        yield f"wrote {self.file}"
        for problem in self.problems:
            yield f"check, {problem.place}: {problem.key} {problem}"
        yield f"next: peftkit data {self.file}, then peftkit run {self.file}"


def import_config(
    config: Path, *, out: Path | None = None, tool: str | None = None
) -> Written | None:
    """Write the recipe for another tool's config; None where the file is no tool's.

    Args:
        out: where to write it; in the working directory, by the config's name, when absent.
        tool: the importer's name; found by the config's keys when absent.

    Raises:
        UsageError: the config is of two tools, or the recipe exists.
        RecipeError: the config cannot be read, and is no JSON, which may be rows.
    """
    suffix = config.suffix.lower()
    if not config.is_file() or not (tool or suffix in (*SUFFIXES, ".json")):
        return None
    try:
        found = recognise(config, tool)
    except RecipeError:
        if tool or suffix in SUFFIXES:
            raise
        return None  # rows: a list, an object a line, or more than a config holds
    if found is None and suffix in SUFFIXES:
        raise UsageError(
            f"{config} is a config of no tool that is known",
            hint=f"say whose it is: --from {', '.join(plugin_names('importers'))}",
        )
    if found is None:
        return None
    out = out or Path(f"{config.name.partition('.')[0] or 'config'}.recipe.yaml")
    if out.exists():
        raise UsageError(
            f"{out} exists already", hint="delete it first, or write another: --out FILE.yaml"
        )
    return write_imported(found, out)


def write_imported(found: Recognised, out: Path) -> Written:
    """Convert a config and write its recipe."""
    imported = found.importer(None).convert(found.foreign, out.parent)
    recipe, fates = dict(imported.recipe), list(imported.fates)
    problems: tuple[Problem, ...] = ()
    out.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    for _ in range(_ROUNDS):
        text = _render(found, replace(imported, recipe=recipe), out)
        write_atomically(out, text)
        problems = _problems(out)
        refused = [one for one in problems if not _is_of_here(one) and _drop(recipe, one.key)]
        if not refused:
            break
        for problem in refused:
            _note_refused(fates, problem)
    known = found.importer
    notes = list(found.foreign.notes)
    if found.others:
        notes.append(f"keys of {' and of '.join(found.others)} stand there too")
    unset = sum(value is None for value in found.foreign.data.values())
    return Written(out, text, known.title, known.version, tuple(fates), unset, tuple(notes),
                   problems, found.foreign.file)  # fmt: skip


def _problems(file: Path) -> tuple[Problem, ...]:
    try:
        load_recipe(file)
    except RecipeError as error:
        return tuple(error.problems)
    return ()


def _is_of_here(problem: Problem) -> bool:
    """Tell whether something lacks on this machine, which the recipe is not to blame for."""
    lacks = any(words in str(problem) for words in _LACKS)
    return not problem.key or problem.key.startswith(_HERE) or lacks


def _drop(recipe: dict[str, Any], key: str) -> bool:
    """Take out of a recipe a key that `check` refuses; False where it has to stay."""
    parts = split(key)
    if parts[0] == "data" and parts[1:2] in (["task"], ["splits"]):
        return False
    node: Any = recipe
    for part in parts[:-1]:
        inside = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(inside, list):  # one item is wrong, and the others mean nothing without it
            del node[part]
            return True
        node = inside
    if not isinstance(node, dict) or parts[-1] not in node or len(parts) < 2:
        return False
    del node[parts[-1]]
    return True


def _note_refused(fates: list[Became], problem: Problem) -> None:
    """Say of the tool's key that its value does not go here, and why."""
    why = f"{problem.key} {problem}"
    kept = [(one.how.partition(":")[0], at) for at, one in enumerate(fates) if one.how]
    holding = [(key, at) for key, at in kept if f"{problem.key}.".startswith(f"{key}.")]
    if not holding:
        fates.append(Became(problem.key, "", Fate.UNSUPPORTED, why))
        return
    _, at = max(holding, key=lambda pair: len(pair[0]))
    fates[at] = replace(fates[at], fate=Fate.UNSUPPORTED, how=why)


def _table(fates: tuple[Became, ...]) -> Iterator[str]:
    """Give a line for each key, what needs attention last."""
    order = {fate: at for at, fate in enumerate(
        (Fate.KEPT, Fate.DEFAULT, Fate.IMPLIED, Fate.NO_EFFECT, Fate.IGNORED, Fate.DIFFERS,
         Fate.UNSUPPORTED))}  # fmt: skip
    shown = [(one, f"{one.key}: {_short(one.value)}") for one in fates]
    width = min(max((len(text) for _, text in shown), default=0), 46)
    for one, text in sorted(shown, key=lambda pair: order[pair[0].fate]):
        place = f" (line {one.line})" if one.line and one.fate is Fate.UNSUPPORTED else ""
        how = f"{one.fate} {one.how}" if one.fate is Fate.KEPT else f"{one.fate}: {one.how}"
        yield f"  {text:<{width}}  {how}{place}"


def _short(value: Any) -> str:
    text = " ".join(dump_inline(value).split()) if not isinstance(value, str) else value
    text = " ".join(text.split())
    return text if len(text) <= 32 else text[:29] + "..."


def _render(found: Recognised, imported: Imported, out: Path) -> str:
    title, version = found.importer.title, found.importer.version
    name = "".join(c if (c.isalnum() and c.isascii()) or c in "-_" else "-" for c in out.stem)
    recipe = {"name": name.strip("-_") or "imported", **imported.recipe}
    source = " ".join(found.foreign.file.name.split())
    lines = [
        f"# The recipe for {source}, a config of {title} (keys as of {version}).",
        "# Needs: -.  Takes: -.  Reaches: -.  (not run yet)",
    ]
    for section in ORDER:
        if section in recipe:
            lines += _block(section, recipe[section], "", section, imported.remarks)
    return "\n".join(lines) + "\n"


def _is_text_block(value: Any) -> bool:
    """Tell whether a text of several lines can stand as they are, which a person reads best."""
    if not isinstance(value, str) or "\n" not in value.rstrip("\n"):
        return False
    plain = all(char.isprintable() or char == "\n" for char in value)
    return plain and value[0] not in " \n" and not value.endswith("\n\n")


def _block(key: str, value: Any, indent: str, path: str, remarks: Mapping[str, str]) -> list[str]:
    remark = f"    # {remarks[path]}" if path in remarks else ""
    head = f"{indent}{dump_inline(key)}:"
    line = f"{head} {dump_inline(value)}"
    if _is_text_block(value):
        ending = "" if value.endswith("\n") else "-"
        body = (f"{indent}  {row}" if row else "" for row in value.splitlines())
        return [f"{head} |{ending}{remark}", *body]
    holds_text = "\\n" in line or "\n" in line
    deep = isinstance(value, dict) and value and (len(split(path)) < 3 or holds_text)
    has_remarks = any(other.startswith(f"{path}.") for other in remarks)
    if isinstance(value, list) and value and len(line) > _MAX_WIDTH:
        return [head + remark, *(f"{indent}  - {dump_inline(item)}" for item in value)]
    is_wide = len(line) > _MAX_WIDTH or holds_text or has_remarks
    if not (deep and (len(split(path)) < 2 or is_wide)):
        return [line + remark]
    lines = [head + remark]
    for name, inner in value.items():
        lines += _block(name, inner, indent + "  ", join(path, name), remarks)
    return lines
