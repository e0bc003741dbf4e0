"""Read rows from local files: JSON, CSV and plain text.

No code in a file is ever run (no pickles), and nothing is fetched. In a recipe, relative paths
start from its folder; patterns (`data/*.jsonl`) and `.gz` are understood.
"""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peftkit.errors import DataError
from peftkit.plugins import Source
from peftkit.sources import json_rows
from peftkit.sources.paths import (
    MAX_LINE_BYTES,
    by_split,
    find_files,
    lines_of,
    not_utf8,
    open_bytes,
    too_long,
)
from peftkit.sources.rows import BadLines, Row, build_table, to_dataset

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


class FilesSource(Source):
    """Say what sources of local files share: which of them a split has."""

    suffixes: ClassVar[Sequence[str]]
    """Of the files that are looked for in a folder."""

    @classmethod
    def named_splits(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """Name the splits of a mapping, or those that a folder's files are named for."""
        files = options.get("files")
        if isinstance(files, dict):
            return list(files)
        if isinstance(files, (str, Path)) and Path(files).expanduser().is_dir():
            with suppress(DataError):  # which is raised with its reason once rows are read
                return list(by_split(Path(files), cls.suffixes))
        return ()

    def splits(self) -> Sequence[str]:
        """Name the splits that `files` gives."""
        return list(by_split(self.config.files, self.suffixes))

    def load(self, split: str) -> Dataset:
        """Read one split.

        Raises:
            DataError: names every malformed line, or what does not fit together.
        """
        return self._load(split, None)

    def load_columns(self, split: str, needed: Sequence[str]) -> Dataset:
        """Read one split, leaving out other columns that cannot stand in a table.

        Raises:
            DataError: as `load`, of the needed columns alone.
        """
        return self._load(split, needed)

    def _load(self, split: str, needed: Sequence[str] | None) -> Dataset:
        files = find_files(self.config.files, split, self.suffixes)
        table = self.read_table(files, needed)
        if not table.num_rows:
            names = ", ".join(str(path) for path in files)
            raise DataError(f"{names}: no rows", hint="check that it is the file you mean")
        return to_dataset(table)

    @abstractmethod
    def read_table(self, files: Sequence[Path], needed: Sequence[str] | None) -> pa.Table:
        """Read files one after the other; all columns must fit a table where `needed` is None."""


@dataclass(frozen=True)
class JsonConfig:
    """Name JSON files."""

    files: Path | list[Path] | dict[str, Path | list[Path]]
    """A file (JSON lines, or one list of objects), several, or a mapping of split to files."""
    field: str | None = None
    """The key that holds the list of rows, where a file is one JSON object."""


class JsonSource(FilesSource):
    """Read JSON lines or lists of objects."""

    Config: ClassVar[type | str] = JsonConfig

    suffixes = (".jsonl", ".ndjson", ".json")

    def read_table(self, files: Sequence[Path], needed: Sequence[str] | None) -> pa.Table:
        """Read the files, naming every malformed line, or the first value of another kind."""
        read = partial(json_rows.read_json, files, self.config.field)
        return build_table(read, hint=json_rows.HINT, needed=needed)


@dataclass(frozen=True)
class CsvConfig:
    """Name CSV files and how their cells are separated."""

    files: Path | list[Path] | dict[str, Path | list[Path]]
    """A file with a header line, several, or a mapping of split to files."""
    sep: str | None = None
    """What separates cells; a comma, or a tab in `.tsv` files, when absent."""
    quotechar: str = '"'
    """What encloses cells that hold the separator or a newline; doubled inside them."""
    column_names: list[str] | None = None
    """Names of the columns, where the files have no header line."""
    encoding: str = "utf-8"
    """How characters are written: `utf-8`, `latin-1`, `cp1252` (Windows) ..."""


class CsvSource(FilesSource):
    """Read comma- or tab-separated values; every value is text."""

    Config: ClassVar[type | str] = CsvConfig

    suffixes = (".csv", ".tsv")

    def read_table(self, files: Sequence[Path], needed: Sequence[str] | None) -> pa.Table:
        """Read the files, naming every line with too few or too many cells."""
        del needed  # text always fits
        hint = "a cell that holds the separator or a newline stands in quotes"
        return build_table(partial(_read_csv, files, self.config), hint=hint)


@dataclass(frozen=True)
class TextConfig:
    """Name text files and what a row is."""

    files: Path | list[Path] | dict[str, Path | list[Path]]
    """A file, several, or a mapping of split to files."""
    sample_by: Literal["line", "paragraph", "document"] = "line"
    """What becomes a row: a line, a paragraph (up to a blank line), or a whole file."""


class TextSource(FilesSource):
    """Read plain text into one column, `text`; blank lines are no rows."""

    Config: ClassVar[type | str] = TextConfig

    suffixes = (".txt", ".md")

    def read_table(self, files: Sequence[Path], needed: Sequence[str] | None) -> pa.Table:
        """Read the files, naming line and byte of what is not UTF-8."""
        del needed
        read = partial(_read_text, files, self.config.sample_by)
        return build_table(read, hint="write the file as UTF-8")


def _read_csv(files: Sequence[Path], config: CsvConfig, bad: BadLines) -> Iterator[Row]:
    for path in files:
        is_tsv = ".tsv" in path.suffixes
        separator = config.sep or ("\t" if is_tsv else ",")
        try:
            with open_bytes(path) as stream, _wide_cells():
                text = io.TextIOWrapper(stream, encoding=config.encoding, newline="")
                lines = csv.reader(
                    _bounded(path, text),
                    delimiter=separator,
                    quotechar=config.quotechar,
                    strict=True,
                )
                yield from _read_cells(path, lines, config.column_names, bad)
        except UnicodeDecodeError as error:
            if config.encoding != "utf-8":
                raise DataError(f"{path} is not {config.encoding}: {error}") from None
            raise _locate_bad_byte(path) from None
        except LookupError:
            raise DataError(
                f"there is no encoding {config.encoding!r}", hint="e.g. utf-8, latin-1, cp1252"
            ) from None
        except TypeError as error:
            raise DataError(f"sep {separator!r} or quotechar: {error}") from None


def _bounded(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    number = 1
    while line := text.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise too_long(path, number)
        yield line
        number += 1


def _read_cells(
    path: Path, lines: Iterator[list[str]], names: list[str] | None, bad: BadLines
) -> Iterator[Row]:
    prefix = f"{path}:"
    number = 0
    try:
        if names is None:
            names = _check_header(path, next(lines, []))
        while True:
            number = lines.line_num + 1  # type: ignore[attr-defined]
            cells = next(lines, None)
            if cells is None:
                return
            if len(cells) == len(names):
                yield Row(prefix, number, dict(zip(names, cells, strict=True)))
            elif cells:
                bad.add(f"{prefix}{number}", f"{len(cells)} cells, but {len(names)} columns")
    except csv.Error as error:
        bad.add(f"{prefix}{number}", f"{error}, in the row that starts here")


def _check_header(path: Path, names: list[str]) -> list[str]:
    if not names:
        return []
    repeated = sorted(name for name, num in Counter(names).items() if num > 1)
    if repeated:
        raise DataError(f"{path}:1: the header names {', '.join(map(repr, repeated))} twice")
    if not all(name.strip() for name in names):
        raise DataError(
            f"{path}:1: the header has a column without a name: {names}",
            hint="name it, or give `column_names` if the file has no header",
        )
    other = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
    if other:
        raise DataError(
            f"{path}:1: the header is one column, {names[0]!r}",
            hint=f"add `sep: {other!r}` beside `files`",
        )
    return names


@contextmanager
def _wide_cells() -> Iterator[None]:
    """Allow cells beyond 128 KiB, the csv module's process-wide limit, up to that of a line."""
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _locate_bad_byte(path: Path) -> DataError:
    try:
        for _ in _decoded_lines(path):
            pass
    except DataError as error:
        return error
    return DataError(f"{path} is not UTF-8")


def _read_text(files: Sequence[Path], sample_by: str, bad: BadLines) -> Iterator[Row]:
    del bad
    for path in files:
        parts: list[str] = []
        number = 0
        for number, line in enumerate(_decoded_lines(path), start=1):
            if sample_by == "line" and line.strip():
                yield Row(f"{path}:", number, {"text": line})
            elif sample_by == "paragraph" and parts and not line.strip():
                yield Row(f"{path}:", number, {"text": "\n".join(parts)})
                parts = []
            elif sample_by == "document" or (sample_by == "paragraph" and line.strip()):
                parts.append(line)
        if any(part.strip() for part in parts):
            yield Row(f"{path}:", number, {"text": "\n".join(parts)})


def _decoded_lines(path: Path) -> Iterator[str]:
    with open_bytes(path) as stream:
        offset = stream.tell()
        for number, raw in lines_of(path, stream):
            try:
                yield raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise not_utf8(path, error, line=number, start=offset) from None
            offset += len(raw)
