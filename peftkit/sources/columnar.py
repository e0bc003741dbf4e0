"""Read rows from local files of columns: Parquet and Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError
from peftkit.sources.columns import require_columns
from peftkit.sources.files import FilesSource

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ColumnarConfig:
    """Name files of columns, and which columns are read."""

    files: Path | list[Path] | dict[str, Path | list[Path]]
    """A file, a folder, several, or a mapping of split to any of these."""
    columns: list[str] | None = None
    """Which columns to read; all when absent."""


class ParquetSource(FilesSource):
    """Read Parquet files."""

    Config: ClassVar[type | str] = ColumnarConfig
    suffixes: ClassVar[Sequence[str]] = (".parquet",)
    noun: ClassVar[str] = "Parquet"

    def read_table(self, files: Sequence[Path], needed: Sequence[str] | None) -> pa.Table:
        """Read the files; one that is none, lacks a column or differs from the others is named."""
        import pyarrow as pa

        schemas = {path: self._open(path, None) for path in files}
        kept = _choose(schemas, self.config.columns, needed)
        tables = [_storable(self._open(path, kept[path])) for path in files]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(
                f"{', '.join(map(str, files))} do not have the same columns: {error}"
            ) from None

    def _open(self, path: Path, columns: Sequence[str] | None) -> Any:
        """Read a file's columns; its schema alone where none are named."""
        import pyarrow as pa

        try:
            return self.read_schema(path) if columns is None else self.read_file(path, columns)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path} is no readable {self.noun} file: {error}",
                hint="write or download it again",
            ) from None

    def read_schema(self, path: Path) -> pa.Schema:
        """Return a file's columns and their types."""
        import pyarrow.parquet as pq

        return pq.read_schema(path)

    def read_file(self, path: Path, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a file."""
        import pyarrow.parquet as pq

        return pq.ParquetFile(path).read(columns=list(columns))


class ArrowSource(ParquetSource):
    """Read Arrow files, in the file or the stream format, as datasets writes them."""

    suffixes: ClassVar[Sequence[str]] = (".arrow", ".feather")
    noun: ClassVar[str] = "Arrow"

    def read_schema(self, path: Path) -> pa.Schema:
        """Return a file's columns and their types."""
        return _open_arrow(path).schema

    def read_file(self, path: Path, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a file."""
        return _open_arrow(path).read_all().select(list(columns))


def _open_arrow(path: Path) -> Any:
    """Open either of the two formats over mapped memory."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source)


def _choose(
    schemas: dict[Path, pa.Schema], stated: list[str] | None, needed: Sequence[str] | None
) -> dict[Path, list[str]]:
    """Return which columns of each file are read: without those that nobody needs and none holds.

    Raises:
        DataError: a column is missing, or is needed and of a type that a dataset cannot hold.
    """
    in_the_way: set[str] = set()
    for path, schema in schemas.items():
        require_columns(stated or (), schema.names, where=str(path))
        for field in schema:
            if stated is not None and field.name not in stated:
                continue
            problem = _unholdable(field)
            if problem and (needed is None or field.name in needed):
                raise DataError(
                    f"{path}: the column {field.name!r} is of the type {field.type}, which a"
                    " dataset cannot hold",
                    hint="write it as text, a list or a struct, or read others: `columns: [...]`",
                )
            if problem:
                in_the_way.add(field.name)
    if needed is not None:
        in_the_way |= _disagreeing(schemas) - set(needed)
    return {
        path: [
            name
            for name in schema.names
            if name not in in_the_way and (stated is None or name in stated)
        ]
        for path, schema in schemas.items()
    }


def _disagreeing(schemas: dict[Path, pa.Schema]) -> set[str]:
    """Name the columns whose types in several files have none in common."""
    import pyarrow as pa

    fields: dict[str, list[Any]] = {}
    for schema in schemas.values():
        for field in schema:
            fields.setdefault(field.name, []).append(field)
    found = set()
    for name, own in fields.items():
        try:
            pa.unify_schemas([pa.schema([one]) for one in own], promote_options="permissive")
        except pa.ArrowException:
            found.add(name)
    return found


def _unholdable(field: pa.Field) -> bool:
    import pyarrow as pa
    from datasets import Features

    try:
        Features.from_arrow_schema(pa.schema([_without_view(field).with_metadata(None)]))
    except (ValueError, TypeError, NotImplementedError):
        return True
    return False


def _storable(table: pa.Table) -> pa.Table:
    """Write lists of views as lists, which a dataset holds, value by value: casts damage them."""
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        stored = _without_view(field)
        if stored is not field:
            values = pa.array(table.column(at).to_pylist(), stored.type)
            table = table.set_column(at, stored, values)
    return table


def _without_view(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    if pa.types.is_list_view(field.type) or pa.types.is_large_list_view(field.type):
        return field.with_type(pa.large_list(field.type.value_type))
    return field
