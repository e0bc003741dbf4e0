"""Encode a split's examples in batches, and measure each row on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from peftkit.errors import DataError
from peftkit.plugins import Method
from peftkit.plugins.examples import Example
from peftkit.preprocessing.audit import Measured
from peftkit.preprocessing.chat_labels import IGNORED, TemplateError, has_double_bos

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Encoded = dict[str, Any]
"""Column -> a row's numbers, or its one number."""
BATCH_ROWS = 1000
COLUMNS = ("input_ids", "labels")
LENGTH = "length"
"""Under which a method that cuts while it encodes says what the row had; no column of the rows."""


@runtime_checkable
class EncodesBatches(Protocol):
    """Describe a method that can encode many examples at once, on all cores."""

    def encode_many(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
    ) -> list[Encoded | DataError]:
        """Encode in order; a DataError stands for an example that cannot be."""


@runtime_checkable
class CutsRows(Protocol):
    """Describe a method whose `arrange` cuts rows at a length."""

    @property
    def max_length(self) -> int | None:
        """Return the tokens a row may have; None where rows are not cut."""


@runtime_checkable
class KeepsEnd(Protocol):
    """Describe a method that may cut rows at their start."""

    @property
    def keeps_end(self) -> bool:
        """Tell whether a row that is too long keeps its end."""


@runtime_checkable
class CutsTargets(Protocol):
    """Describe a method whose rows have a target beside what is read, cut at a length of its own.

    Its two lengths are the options `max_source_length` and `max_target_length`.
    """

    @property
    def max_target_length(self) -> int:
        """Return the tokens that a target may have."""


def length_option(method: Any) -> str:
    """Name the option that says where a method, or its class, cuts what a model reads."""
    return "max_source_length" if hasattr(method, "max_target_length") else "max_length"


@dataclass(frozen=True, slots=True)
class RowCount:
    """Count one row's tokens."""

    length: int
    """Tokens before any cut; of the source, where there is a target."""
    needed: int
    """Smallest `max_length` that keeps a trained token; 0 when none is trained at all."""
    num_tokens: int
    """Tokens once cut, the target's included."""
    num_trained: int
    """What the loss counts of them; 0 leaves the row out."""
    is_cut: bool
    is_ended: bool
    """Whether the last trained token is still there."""
    target_length: int = 0
    """Tokens of the target before any cut; 0 where there is none."""


@runtime_checkable
class CountsRows(Protocol):
    """Describe a method whose rows are not one sequence of which some tokens are trained."""

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count one encoded row."""


@dataclass(frozen=True)
class EncodedRows:
    """Hold one split's tokens and labels, not yet cut, and what was measured of them."""

    table: pa.Table
    """Columns of the rows in `kept`: `input_ids`, `labels` and what else the method encodes."""
    kept: list[int]
    """Which examples have a trained token, once cut."""
    measured: Measured
    """Of every example that could be encoded, kept or not."""
    dropped: dict[str, int]
    """Why an example could not be encoded -> how many."""
    first_dropped: int | None
    """The first of them."""
    num_tokens: int
    """Tokens of the kept rows, once cut."""
    num_trained_tokens: int
    """Trained ones among them."""
    num_truncated: int
    """Kept rows that are cut."""
    num_ended: int
    """Kept rows whose last trained token is still there."""


def row_limit(method: Method) -> int | None:
    """Return where a method cuts rows; None where it does not."""
    return method.max_length if isinstance(method, CutsRows) else None


def longest(rows: Dataset, column: str) -> int:
    """Return the numbers of the longest row of a column; 0 without rows."""
    lengths = (
        batch[column].combine_chunks().value_lengths().to_numpy().max()
        for batch in rows.with_format("arrow").iter(10_000)
    )
    return int(max(lengths, default=0))


def source_limit(method: Method) -> int | None:
    """Return where a method cuts what an encoder reads; None where rows are one sequence."""
    return row_limit(method) if isinstance(method, CutsTargets) else None


def encode_rows(
    examples: Sequence[Example], method: Method, tokenizer: PreTrainedTokenizerBase
) -> EncodedRows:
    """Encode every example through the method.

    Rows go into Arrow batch by batch: as Python's integers they would take ten times the memory.

    Raises:
        TemplateError: the chat template is missing or unfit for training.
    """
    import pyarrow as pa

    tally = _Tally(method)
    batches = []
    for start in range(0, len(examples), BATCH_ROWS):
        results = _encode_batch(examples[start : start + BATCH_ROWS], method, tokenizer)
        good = list(tally.take(start, results, tokenizer))
        if good:
            batches.append(_to_table(good))
    empty = pa.schema([(column, pa.list_(pa.int32())) for column in COLUMNS]).empty_table()
    return tally.finish(pa.concat_tables(batches) if batches else empty)


def _to_table(rows: Sequence[Mapping[str, np.ndarray]]) -> pa.Table:
    import pyarrow as pa

    columns = {}
    for column, values in rows[0].items():
        kind = pa.list_(pa.int32()) if values.ndim else pa.int32()
        taken = [row[column] if values.ndim else int(row[column]) for row in rows]
        columns[column] = pa.array(taken, kind)
    return pa.table(columns)


def _encode_batch(
    examples: Sequence[Example], method: Method, tokenizer: PreTrainedTokenizerBase
) -> list[Encoded | DataError]:
    if isinstance(method, EncodesBatches):
        return method.encode_many(examples, tokenizer)
    results: list[Encoded | DataError] = []
    for example in examples:
        try:
            results.append(method.encode(example, tokenizer))
        except TemplateError:
            raise
        except DataError as error:
            results.append(error)
    return results


def count_sequence(labels: np.ndarray, limit: int | None, *, keeps_end: bool = False) -> RowCount:
    """Count a row of one sequence, of which the tokens with a label are trained.

    Args:
        limit: where it is cut; None where it is not.
        keeps_end: whether its start is cut off.
    """
    length = len(labels)
    limit = length if limit is None else limit
    trained = (labels != IGNORED).nonzero()[0]
    if not len(trained):
        return RowCount(length, 0, min(length, limit), 0, length > limit, False)
    first, last = int(trained[0]), int(trained[-1])
    start = max(length - limit, 0) if keeps_end else 0
    return RowCount(
        length=length,
        needed=length - last if keeps_end else first + 1,
        num_tokens=min(length, limit),
        num_trained=int(((trained >= start) & (trained < start + limit)).sum()),
        is_cut=length > limit,
        is_ended=start <= last < start + limit,
    )


@dataclass
class _Tally:
    """Count over the batches of one split."""

    method: Method
    kept: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    counts: list[RowCount] = field(default_factory=list)
    double_bos: list[bool] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: int | None = None

    def take(
        self,
        start: int,
        results: Sequence[Encoded | DataError],
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Count a batch and give its rows that have a trained token, once cut."""
        import numpy as np

        for at, result in enumerate(results, start):
            if isinstance(result, DataError):
                self.dropped[result.message] += 1
                self.first_dropped = at if self.first_dropped is None else self.first_dropped
                continue
            row = {column: np.asarray(values, np.int32) for column, values in result.items()}
            count = self._count(row)
            self.index.append(at)
            self.counts.append(count)
            self.double_bos.append(has_double_bos(result["input_ids"], tokenizer))
            if count.num_trained:
                self.kept.append(at)
                row.pop(LENGTH, None)
                yield row

    def _count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        if isinstance(self.method, CountsRows):
            return self.method.count(row)
        keeps_end = isinstance(self.method, KeepsEnd) and self.method.keeps_end
        return count_sequence(row["labels"], row_limit(self.method), keeps_end=keeps_end)

    def finish(self, table: pa.Table) -> EncodedRows:
        """Freeze the counts."""
        import numpy as np

        used = [count for count in self.counts if count.num_trained]
        measured = Measured(
            index=np.asarray(self.index, np.int64),
            length=np.asarray([count.length for count in self.counts], np.int64),
            needed=np.asarray([count.needed for count in self.counts], np.int64),
            is_double_bos=np.asarray(self.double_bos, bool),
            target_length=(
                np.asarray([count.target_length for count in self.counts], np.int64)
                if isinstance(self.method, CutsTargets)
                else None
            ),
        )
        return EncodedRows(
            table=table,
            kept=self.kept,
            measured=measured,
            dropped=dict(self.dropped),
            first_dropped=self.first_dropped,
            num_tokens=sum(count.num_tokens for count in used),
            num_trained_tokens=sum(count.num_trained for count in used),
            num_truncated=sum(count.is_cut for count in used),
            num_ended=sum(count.is_ended for count in used),
        )
