"""Encode a split's examples in batches, and measure each row on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftkit.errors import DataError
from peftkit.plugins import Method
from peftkit.plugins.examples import Example
from peftkit.plugins.rows import LENGTH, PICTURES, TEXT, Row, RowCount
from peftkit.preprocessing.breaches import Measured
from peftkit.preprocessing.chat_labels import has_double_bos
from peftkit.preprocessing.readback import lost_characters

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Encoded = list[list[Row] | DataError]
"""For each example its rows, or why it has none."""
BATCH_ROWS = 1000
AS_THEY_ARE = (PICTURES, TEXT)
"""Columns of rows that hold no numbers."""
COLUMNS = ("input_ids", "labels")


@dataclass(frozen=True)
class EncodedRows:
    """Hold one split's tokens and labels, not yet cut, and what was measured of them."""

    table: pa.Table
    """Columns of the rows in `kept`: `input_ids`, `labels` and what else the method encodes."""
    kept: list[int]
    """Which examples have a row with a trained token, once cut."""
    example_of: list[int]
    """The example of each row in `table`."""
    measured: Measured
    """Of every row of the examples that could be encoded, kept or not."""
    dropped: dict[str, int]
    """Why an example could not be encoded -> how many."""
    hints: dict[str, str]
    """Why one could not be encoded -> what to try."""
    left_out: dict[str, int]
    """Why an example is left out, as the recipe says -> how many."""
    first_dropped: int | None
    """The first that could not be encoded."""
    num_tokens: int
    """Tokens of the kept rows, once cut."""
    num_trained_tokens: int
    """Trained ones among them."""
    num_truncated: int
    """Kept rows that are cut."""
    num_cut: int
    """Kept examples whose document is shortened."""
    num_ended: int
    """Kept rows whose last trained token is still there."""

    @property
    def num_rows(self) -> int:
        """Return the kept rows: windows, where a text becomes several."""
        return int(self.table.num_rows)

    @property
    def num_encoded(self) -> int:
        """Return the examples that could be encoded, kept or not."""
        return len(set(self.measured.index.tolist()))


class LeftOutError(DataError):
    """Stand in the place of an example that the recipe leaves out."""


class Fitter(ABC):
    """Do what a recipe says about rows that are too long, before they are counted."""

    cut: Collection[int]
    """The examples whose document is shortened so far."""

    @abstractmethod
    def __call__(self, start: int, encoded: Encoded) -> Encoded:
        """Return a batch's rows with those that are too long left out, or made anew.

        Args:
            start: the number of its first example.
        """


def longest(rows: Dataset, column: str) -> int:
    """Return the numbers of the longest row of a column; 0 without rows."""
    lengths = (
        batch[column].combine_chunks().value_lengths().to_numpy().max()
        for batch in rows.with_format("arrow").iter(10_000)
    )
    return int(max(lengths, default=0))


def encode_rows(
    examples: Sequence[Example],
    method: Method,
    tokenizer: PreTrainedTokenizerBase,
    fit: Fitter | None = None,
) -> EncodedRows:
    """Encode every example through the method.

    Rows go into Arrow batch by batch: as Python's integers they would take ten times the memory.

    Args:
        fit: what is done about rows that are too long; left to the method when absent.

    Raises:
        TemplateError: the chat template is missing or unfit for training.
    """
    import pyarrow as pa

    tally = _Tally(method)
    batches = []
    for start in range(0, len(examples), BATCH_ROWS):
        batch = examples[start : start + BATCH_ROWS]
        # An answer that is pointed at, or a label, is read back from no token.
        is_written = method.kind.answers == "text"
        tally.lost += lost_characters(batch, tokenizer) if is_written else [None] * len(batch)
        encoded = method.encode(batch, tokenizer)
        good = list(tally.take(start, fit(start, encoded) if fit else encoded, tokenizer))
        if good:
            batches.append(_to_table(good))
    empty = pa.schema([(column, pa.list_(pa.int32())) for column in COLUMNS]).empty_table()
    return tally.finish(
        pa.concat_tables(batches) if batches else empty, fit.cut if fit else frozenset()
    )


def to_arrays(row: Row) -> dict[str, np.ndarray]:
    """Return a row as `Method.count` takes it; what is no number stays as it is."""
    import numpy as np

    return {
        column: np.asarray(values, float if isinstance(values, float) else np.int32)
        if column not in AS_THEY_ARE
        else values
        for column, values in row.items()
    }


def _to_table(rows: Sequence[Mapping[str, np.ndarray]]) -> pa.Table:
    import pyarrow as pa

    columns = {}
    for column, values in rows[0].items():
        if column in AS_THEY_ARE:
            columns[column] = pa.array([row[column] for row in rows])
            continue
        number = pa.float64() if values.dtype.kind == "f" else pa.int32()
        taken = [row[column] if values.ndim else row[column].item() for row in rows]
        columns[column] = pa.array(taken, pa.list_(number) if values.ndim else number)
    return pa.table(columns)


@dataclass
class _Tally:
    """Count over the batches of one split."""

    method: Method
    kept: list[int] = field(default_factory=list)
    example_of: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    counts: list[RowCount] = field(default_factory=list)
    double_bos: list[bool] = field(default_factory=list)
    lost: list[str | None] = field(default_factory=list)
    """Of each example, encoded or not."""
    dropped: Counter[str] = field(default_factory=Counter)
    hints: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    first_dropped: int | None = None

    def take(
        self,
        start: int,
        results: Encoded,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Count a batch and give its rows that have a trained token, once cut."""
        for at, result in enumerate(results, start):
            if isinstance(result, LeftOutError):
                self.left_out[result.message] += 1
                continue
            if isinstance(result, DataError):
                self.dropped[result.message] += 1
                if result.hint:
                    self.hints[result.message] = result.hint
                self.first_dropped = at if self.first_dropped is None else self.first_dropped
                continue
            num_used = 0
            for encoded in result:
                row = to_arrays(encoded)
                count = self.method.count(row)
                self.index.append(at)
                self.counts.append(count)
                read = self.method.sequences(encoded)
                self.double_bos.append(any(has_double_bos(ids, tokenizer) for ids, _ in read))
                if count.num_trained:
                    num_used += 1
                    self.example_of.append(at)
                    row.pop(LENGTH, None)
                    yield row
            if num_used:
                self.kept.append(at)

    def finish(self, table: pa.Table, cut: Collection[int]) -> EncodedRows:
        """Freeze the counts.

        Args:
            cut: examples whose document is shortened.
        """
        import numpy as np

        used = [count for count in self.counts if count.num_trained]
        measured = Measured(
            index=np.asarray(self.index, np.int64),
            length=np.asarray([count.length for count in self.counts], np.int64),
            needed=np.asarray([count.needed for count in self.counts], np.int64),
            is_double_bos=np.asarray(self.double_bos, bool),
            lost={at: self.lost[at] or "" for at in self.kept if self.lost[at] is not None},
            target_length=(
                np.asarray([count.target_length for count in self.counts], np.int64)
                if self.method.target_option
                else None
            ),
        )
        return EncodedRows(
            table=table,
            kept=self.kept,
            example_of=self.example_of,
            measured=measured,
            dropped=dict(self.dropped),
            hints=self.hints,
            left_out=dict(self.left_out),
            first_dropped=self.first_dropped,
            num_tokens=sum(count.num_tokens for count in used),
            num_trained_tokens=sum(count.num_trained for count in used),
            num_cut=sum(at in cut for at in self.kept),
            num_truncated=sum(count.is_cut for count in used),
            num_ended=sum(count.is_ended for count in used),
        )
