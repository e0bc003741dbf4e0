"""Tell whose config a file is: the tool whose own keys, or whose command, stand in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peftkit.errors import RecipeError, UsageError
from peftkit.plugins import Importer, find, plugin_names
from peftkit.plugins.importer import Foreign
from peftkit.recipe.foreign_yaml import read_foreign_yaml
from peftkit.recipe.shell_script import read_shell

YAML = (".yaml", ".yml")
SHELL = (".sh", ".bash")
SUFFIXES = (*YAML, *SHELL)
ENOUGH = 2
"""Keys of a tool's own that make a config its config."""
OURS = frozenset({"model", "data", "adapter", "method"})


@dataclass(frozen=True)
class Recognised:
    """Hold a config and the importer that reads it."""

    name: str
    importer: type[Importer]
    foreign: Foreign
    others: tuple[str, ...] = ()
    """Titles of tools of which keys stand there too."""


def recognise(file: Path, wanted: str | None = None) -> Recognised | None:
    """Find the importer of a config; None where no tool's keys stand in it.

    Args:
        wanted: the importer's name, which is asked for whatever the keys are.

    Raises:
        UsageError: there is no importer of that name, or a script has no command of its.
        RecipeError: the file cannot be read.
    """
    names = [wanted] if wanted else plugin_names("importers")
    importers: Mapping[str, type[Importer]] = {name: find("importers", name) for name in names}
    if file.suffix.lower() in SHELL:
        return _of_shell(file, importers, wanted)
    foreign = read_foreign_yaml(file)
    scores = {name: importer.recognise(foreign) for name, importer in importers.items()}
    best = max(scores, key=lambda name: scores[name])
    if not wanted and (scores[best] < ENOUGH or foreign.data.keys() >= OURS):
        return None
    second = [n for n, score in scores.items() if n != best and score >= ENOUGH]
    if any(scores[name] == scores[best] for name in second) and not wanted:
        tied = [best, *(name for name in second if scores[name] == scores[best])]
        raise UsageError(
            f"{file} has keys of {' and of '.join(importers[name].title for name in tied)}",
            hint=f"say whose it is: --from {tied[0]}",
        )
    others = tuple(importers[name].title for name in second)
    return Recognised(best, importers[best], foreign, others)


def _of_shell(
    file: Path, importers: Mapping[str, type[Importer]], wanted: str | None
) -> Recognised | None:
    for name, importer in importers.items():
        foreign = read_shell(file, importer.commands) if importer.commands else None
        if foreign is not None and not foreign.data:
            why = next((note for note in foreign.notes if "is not found" in note), "")
            raise UsageError(
                f"{file} runs {importer.title} without an option: {why or 'it names no config'}",
                hint="name the config itself, or its folder's script",
            )
        if foreign is not None:
            return Recognised(name, importer, foreign)
    if wanted:
        raise UsageError(
            f"{file} starts no training of {importers[wanted].title}",
            hint="name the script that holds the command itself",
        )
    return None


def describe_foreign(file: Path) -> str | None:
    """Say in words whose config a file is; None where it is nobody's that is known."""
    try:
        found = recognise(file) if file.suffix.lower() in SUFFIXES and file.is_file() else None
    except UsageError as error:
        return error.message
    except RecipeError:
        return None
    if found is None:
        return None
    title = found.importer.title
    kind = f"a script that runs {title}" if found.foreign.command else f"a config of {title}"
    return f"is {kind}, not a recipe"
