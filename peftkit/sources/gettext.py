"""Read gettext catalogues (.po and .mo): the translation memory that every translated program has.

A row is one message and its translation, both exactly as they stand, placeholders included. What
a catalogue would not show a user is no row, and counted: messages without a translation, those that
wait for a translator's review (fuzzy), those that the program no longer has (obsolete).
"""

from __future__ import annotations

import gettext
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.plugins import Source
from peftkit.sources.paths import by_split, find_files
from peftkit.sources.rows import to_dataset

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("source", "target", "context", "language", "file")
SUFFIXES = (".po", ".mo")
_LINE = re.compile(
    r'\s*(#.*|((msgctxt|msgid|msgid_plural|msgstr(\[\d+\])?)\s*)?"([^"\\]|\\.)*"\s*)?', re.DOTALL
)
"""What a line of a `.po` file may be; polib cuts an unclosed string short without a word."""
_TRIED_NUMBERS = range(2, 1000)
"""Whose most frequent form is a language's plural: 5, not 2, in Russian."""


@dataclass(frozen=True)
class GettextConfig:
    """Name catalogues, and say which of their messages are rows."""

    files: Path | list[Path] | dict[str, Path | list[Path]] | None = None
    """A `.po` or `.mo` file, a pattern (`locale/*/LC_MESSAGES/*.po`), several, or a mapping of
    split to files."""
    folder: str | None = None
    """Instead of files: where `pip install --no-deps --target FOLDER` put packages, all of whose
    catalogues are read, those of `languages` by their folders' names."""
    languages: list[str] | None = None
    """Codes as the catalogues have them (`de`, `pt_BR`); every language when absent."""
    plurals: bool = True
    """Whether a message with plural forms gives two rows, singular and plural; one when false."""
    fuzzy: bool = False
    """Whether translations that wait for review are rows too."""


class GettextSource(Source):
    """Give messages as `source` and their translations as `target`.

    The other columns are `context` (msgctxt), `language` and `file`. The language is the one that
    the header names, else the one of the path (`de/LC_MESSAGES/app.po`, `de.po`).
    """

    Config: ClassVar[type | str] = GettextConfig

    def __init__(self, config: GettextConfig) -> None:
        super().__init__(config)
        if (config.files is None) == (config.folder is None):
            raise DataError("gettext: name either files or a folder of packages")
        self._left_out: dict[str, Counter[str]] = {}

    def splits(self) -> list[str]:
        """Name the splits that `files` gives."""
        return ["train"] if self.config.folder else list(by_split(self.config.files, SUFFIXES))

    def load(self, split: str) -> Dataset:
        """Read one split's catalogues in their order, each pair of a language once.

        Raises:
            DataError: a file is no catalogue, or there is nothing translated into `languages`.
        """
        import pyarrow as pa

        files, languages = self._find(split)
        left_out: Counter[str] = Counter()
        rows: dict[tuple[Any, ...], dict[str, str | None]] = {}
        found: set[str] = set()
        for path in files:
            catalogue = _read(path)
            language = _language(catalogue.metadata, path)
            found.add(language)
            if languages is not None and language not in languages:
                left_out["of another language"] += len(catalogue)
                continue
            for row in self._rows(catalogue, left_out):
                values = {**row, "language": language, "file": str(path)}
                key = tuple(values[column] for column in COLUMNS[:-1])
                left_out["repeated"] += key in rows
                rows.setdefault(key, values)
        self._check(rows, found, files, languages or ())
        self._left_out[split] = +left_out
        schema = pa.schema([(column, pa.string()) for column in COLUMNS])
        return to_dataset(pa.Table.from_pylist(list(rows.values()), schema))

    def left_out(self, split: str) -> Mapping[str, int]:
        """Count the messages that are no rows, by reason."""
        return dict(self._left_out.get(split, {}))

    def _find(self, split: str) -> tuple[list[Path], list[str] | None]:
        """Return a split's files, and which languages to pick by their headers; None for all."""
        config: GettextConfig = self.config
        if config.folder is None:
            return find_files(config.files or {}, split, SUFFIXES), config.languages
        if split not in self.splits():
            raise DataError(f"gettext: no split {split!r}; a folder of packages has train")
        names = config.languages or ["*"]
        below = Path(config.folder).expanduser()
        found = [sorted(below.glob(f"**/{name}/LC_MESSAGES/*.po")) for name in names]
        if not all(found):
            missing = ", ".join(name for name, files in zip(names, found, strict=True) if not files)
            raise DataError(
                f"gettext: there is no catalogue {config.folder}/**/{missing}/LC_MESSAGES/*.po",
                hint=f"pip install --no-deps --target {config.folder} PACKAGE...",
            )
        return [file for files in found for file in files], None

    def _rows(self, catalogue: Any, left_out: Counter[str]) -> Iterator[dict[str, str | None]]:
        singular, plural = _forms(catalogue.metadata)
        for entry in catalogue:
            reason = self._reason(entry)
            if reason:
                left_out[reason] += 1
                continue
            pairs = [(entry.msgid, entry.msgstr)]
            if entry.msgid_plural:
                forms = entry.msgstr_plural
                pairs = [
                    (entry.msgid, forms.get(singular)),
                    (entry.msgid_plural, forms.get(plural)),
                ]
            for source, target in pairs[: 2 if self.config.plurals else 1]:
                if target:
                    yield {"source": source, "target": target, "context": entry.msgctxt}
                else:
                    left_out["untranslated"] += 1

    def _reason(self, entry: Any) -> str:
        """Say why a message is no row; empty for one that is."""
        if entry.obsolete:
            return "obsolete"
        forms = entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr]
        if not any(forms):
            return "untranslated"
        return "fuzzy" if "fuzzy" in entry.flags and not self.config.fuzzy else ""

    def _check(
        self,
        rows: Mapping[Any, Any],
        found: set[str],
        files: Sequence[Path],
        languages: Sequence[str],
    ) -> None:
        missing = sorted(set(languages) - found)
        if missing:
            raise DataError(
                f"gettext: no catalogue is in {', '.join(missing)}; there are"
                f" {', '.join(sorted(found))}",
                hint="write languages as the catalogues' headers have them",
            )
        if not rows:
            names = ", ".join(map(str, files[:3])) + (" ..." if len(files) > 3 else "")
            raise DataError(
                f"{names}: no message is translated", hint="check that they are not templates"
            )


def _read(path: Path) -> Any:
    """Parse a catalogue in the charset of its header.

    Raises:
        DataError: it is no catalogue; names the line of a `.po` file.
        UsageError: polib is not installed.
    """
    try:
        import polib
    except ImportError:
        raise UsageError(
            "reading gettext catalogues needs the polib package",
            hint="pip install 'peftkit[gettext]'",
        ) from None
    is_compiled = path.suffix in (".mo", ".gmo")
    try:
        catalogue = (polib.mofile if is_compiled else polib.pofile)(str(path))
        if not is_compiled:
            _check_lines(path, catalogue.encoding)
        return catalogue
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte 0x{error.object[error.start]:02x} is no {error.encoding}, which its"
            " header says it is written in",
            hint="msgconv -t UTF-8 FILE, or mend charset= in its header",
        ) from None
    except LookupError as error:
        raise DataError(f"{path}: {error}", hint="mend charset= in its header") from None
    except (OSError, ValueError, struct.error) as error:
        raise DataError(
            f"{path} is no gettext catalogue: {error}", hint="msgfmt --check FILE says more"
        ) from None


def _check_lines(path: Path, charset: str) -> None:
    with path.open(encoding=charset) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not _LINE.fullmatch(text.removeprefix("#~").removeprefix("#|").strip()):
                raise ValueError(f"line {number}: {text[:60]}")


def _language(metadata: Mapping[str, str], path: Path) -> str:
    """Return the code in the header, else that of the path; empty where neither says it."""
    stated = metadata.get("Language", "").strip()
    if stated:
        return stated
    return path.parents[1].name if path.parent.name == "LC_MESSAGES" else path.stem


def _forms(metadata: Mapping[str, str]) -> tuple[int, int]:
    """Return which forms stand for one and for most numbers, by the header's own formula.

    Without a formula they are the first two, as gettext itself has it.
    """
    _, _, formula = metadata.get("Plural-Forms", "").partition("plural=")
    try:
        form = gettext.c2py(formula.strip().rstrip(";"))
        counted = Counter(form(number) for number in _TRIED_NUMBERS)
    except (ValueError, RecursionError):
        return 0, 1
    return form(1), counted.most_common(1)[0][0]
