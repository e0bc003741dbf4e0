"""Gather rows of a file into an Arrow table, and explain the rows that do not fit.

Rows are read once, in chunks. Only when a column does not fit together is the file read again,
slowly, to find out in which line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from peftkit.errors import DataError
from peftkit.sources.columns import describe_kind

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

CHUNK_ROWS = 10_000
MAX_SHOWN = 10
"""How many malformed lines an error shows; the rest are counted."""
MAX_COUNTED = 100_000
"""After so many of them a file is not read on."""
MAX_COLUMNS = 10_000
"""Of a table; where keys are data, each row brings new ones."""


class _EnoughError(Exception):
    """End the reading of a file with too many malformed lines."""


class Row(NamedTuple):
    """Hold one row and where it stood."""

    prefix: str
    """What precedes the number in a message: `data.jsonl:` or `data.json row `."""
    number: int
    """The line, from 1; the row, from 0, where rows have no lines."""
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        """Return where the row stands, e.g. `data.jsonl:7`."""
        return f"{self.prefix}{self.number}"


@dataclass
class BadLines:
    """Collect malformed lines, to report them together."""

    shown: list[str] = field(default_factory=list)
    """The first few, as `place: what`."""
    num_lines: int = 0
    """How many there were."""

    def add(self, place: str, what: str) -> None:
        """Note one line; end the reading where there are too many."""
        if self.num_lines == MAX_COUNTED:
            raise _EnoughError
        self.num_lines += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(f"{place}: {what}")

    def check(self, *, hint: str) -> None:
        """Refuse the file if any line was malformed.

        Raises:
            DataError: shows the first ten lines and counts the rest.
        """
        if not self.num_lines:
            return
        if self.num_lines == 1:
            raise DataError(self.shown[0], hint=hint)
        lines = [f"{self.num_lines} malformed lines", *(f"  {line}" for line in self.shown)]
        if self.num_lines > len(self.shown):
            is_all = self.num_lines < MAX_COUNTED
            more = f"{self.num_lines - len(self.shown)} more"
            lines.append(f"  and {more}" if is_all else f"  and {more}; it was not read on")
        raise DataError("\n".join(lines), hint=hint)


def build_table(
    read: Callable[[BadLines], Iterable[Row]],
    *,
    hint: str,
    needed: Collection[str] | None = None,
) -> pa.Table:
    """Build a table of all rows that `read` gives; columns are the union of the rows' keys.

    Args:
        read: gives the rows from the start each time it is called, and notes malformed lines.
        hint: how to mend a malformed line.
        needed: columns that must fit; others that do not are left out. All must when absent.

    Raises:
        DataError: malformed lines, or a column whose values are of different kinds.
    """
    import pyarrow as pa

    left_out: frozenset[str] = frozenset()
    while True:
        bad = BadLines()
        rows = iter(read(bad))
        try:
            tables = list(_chunks(rows, bad, left_out))
            bad.check(hint=hint)
            return (
                pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
            )
        except _EnoughError:
            pass  # and let go of what was read
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError) as error:
            with suppress(_EnoughError):
                for _ in rows:  # the lines after the chunk that failed
                    pass
            bad.check(hint=hint)
            misfits = find_misfits(read(BadLines()))
            in_the_way = misfits.keys() - (needed if needed is not None else misfits.keys())
            for column, problem in misfits.items():
                if column not in in_the_way:
                    raise problem from None
            if in_the_way <= left_out:
                raise DataError(f"the rows do not fit one table: {error}") from None
            left_out |= in_the_way
        bad.check(hint=hint)


def _chunks(rows: Iterator[Row], bad: BadLines, left_out: Collection[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    names: dict[str, None] = {}
    while chunk := list(islice(rows, CHUNK_ROWS)):
        if bad.num_lines:
            continue  # the file is refused anyway: only find the other malformed lines
        own: dict[str, None] = {}
        for row in chunk:
            own |= dict.fromkeys(name for name in row.values if name not in left_out)
            if len(names) + len(own) > MAX_COLUMNS and len(names | own) > MAX_COLUMNS:
                raise _too_many_columns(row)
        names |= own
        values = [row.values for row in chunk]
        yield pa.table({name: pa.array([one.get(name) for one in values]) for name in own})


def _too_many_columns(row: Row) -> DataError:
    return DataError(
        f"{row.place}: with this row there are more than {MAX_COLUMNS:,} keys, each a column",
        hint="where keys are data, write them as values: [{key: a, value: 1}, ...]",
    )


def to_dataset(table: pa.Table) -> Dataset:
    """Wrap a table as a dataset in memory; nothing is written to datasets' cache."""
    from datasets import Dataset
    from datasets.fingerprint import generate_random_fingerprint
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(table), fingerprint=generate_random_fingerprint())


def find_misfits(rows: Iterable[Row]) -> dict[str, DataError]:
    """Find in each column the first value that cannot stand there with the values before it."""
    first_seen: dict[str, tuple[str, str]] = {}
    found: dict[str, DataError] = {}
    for row in rows:
        for column, value in row.values.items():
            if column not in found:
                problem = _misfit(str(column), value, row.place, first_seen)
                if problem is not None:
                    found[column] = problem
    return found


def _misfit(
    column: str, value: object, place: str, first_seen: dict[str, tuple[str, str]]
) -> DataError | None:
    for path, inner in _walk(value, column):
        problem = _unstorable(inner)
        if problem:
            return DataError(f"{place}: {path} holds {problem}", hint="mend or remove that row")
        kind = describe_kind(inner)
        if kind == "null":
            continue
        known, before = first_seen.setdefault(path, (kind, place))
        if known != kind:
            return DataError(
                f"{place}: {path} is {kind}, but {known} in {before}",
                hint=f"write every {path} as the same kind of value",
            )
    return None


def _walk(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Give every value inside a row with its path, e.g. `messages[].content`."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, f"{path}[]")


def _unstorable(value: object) -> str | None:
    if isinstance(value, str):
        for char in value:
            if "\ud800" <= char <= "\udfff":
                return f"half of a surrogate pair (\\u{ord(char):04x}), which is no character"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"an integer beyond 64 bits ({str(value)[:24]})"
    return None
