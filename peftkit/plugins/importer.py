"""The contract of importers: what reads another tool's config and says what became of every key.

An importer is a table: each key of the tool, and its fate here. `peftkit.plugins.imported` holds
the words that tables are written in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from peftkit.plugins.parts import Plugin


class Fate(StrEnum):
    """Say what became of a key, in the words that `init` prints."""

    KEPT = "kept as"
    DEFAULT = "default there"
    """It stands nowhere in the config, and the tool means it: it is written out."""
    IMPLIED = "implied"
    """What peftkit does anyway."""
    NO_EFFECT = "no effect here"
    DIFFERS = "differs"
    UNSUPPORTED = "not supported"
    IGNORED = "no key there"


@dataclass(frozen=True)
class Became:
    """Say what became of one key."""

    key: str
    """As the tool writes it, dotted: `datasets.0.type`."""
    value: Any
    fate: Fate
    how: str = ""
    """The recipe's key, or how it differs, or why not and what comes nearest."""
    line: int | None = None


@dataclass(frozen=True)
class Foreign:
    """Hold another tool's config, read into plain data."""

    file: Path
    data: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    """Dotted key -> 1-based line."""
    command: str = ""
    """The words before the options, where it is the command of a shell script."""
    notes: tuple[str, ...] = ()
    """What was found on the way: variables without a value, further commands ..."""

    def place_of(self, path: str) -> Path | None:
        """Find a path that the config names: as seen from here, or from a folder above the file.

        Tools resolve paths from where they are started, which is mostly the top of a repository.
        """
        wanted = Path(path).expanduser()
        folder = self.file.absolute().parent
        bases = [Path.cwd(), *([folder, *folder.parents][:5])]
        try:
            return next((base / wanted for base in bases if (base / wanted).exists()), None)
        except OSError:  # no path: longer than any may be
            return None


@dataclass(frozen=True)
class Imported:
    """Hold the recipe that does the same, and what became of every key."""

    recipe: Mapping[str, Any]
    fates: tuple[Became, ...]
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Dotted key of the recipe -> the comment behind it."""


class Importer(Plugin):
    """Write the recipe for another tool's config."""

    Config: ClassVar[type | str | None] = None
    """Importers take no options."""
    title: ClassVar[str]
    """The tool's name as it writes it, e.g. `LLaMA-Factory`."""
    version: ClassVar[str]
    """Whose schema the table was read from."""
    keys: ClassVar[frozenset[str]]
    """All keys of that schema; others are ignored, or refused, by the tool too."""
    telling: ClassVar[frozenset[str]]
    """Keys that tell this tool's configs from those of the others."""
    commands: ClassVar[Sequence[str]] = ()
    """Patterns (`re`) of the commands that start a training: `swift sft`."""

    @classmethod
    def recognise(cls, foreign: Foreign) -> int:
        """Count what in a config is this tool's alone; 0 where it is not its."""
        return len(cls.telling & foreign.data.keys()) + 10 * bool(foreign.command)

    @abstractmethod
    def convert(self, foreign: Foreign, folder: Path) -> Imported:
        """Say the same as a recipe.

        Args:
            folder: where the recipe will lie; its relative paths start there.
        """
