"""Encode a split's examples in batches, and measure each row on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from peftkit.audit import Measured
from peftkit.errors import DataError
from peftkit.masks import IGNORED, TemplateError, has_double_bos
from peftkit.plugins import Conversation, Method, Text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

Example = Conversation | Text
Encoded = dict[str, list[int]]
BATCH_ROWS = 1000
COLUMNS = ("input_ids", "labels")


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


@dataclass(frozen=True)
class EncodedRows:
    """Hold one split's tokens and labels, not yet cut, and what was measured of them."""

    table: pa.Table
    """Columns `input_ids` and `labels` of the rows in `kept`."""
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


def encode_rows(
    examples: Sequence[Example], method: Method, tokenizer: PreTrainedTokenizerBase
) -> EncodedRows:
    """Encode every example through the method.

    Rows go into Arrow batch by batch: as Python's integers they would take ten times the memory.

    Raises:
        TemplateError: the chat template is missing or unfit for training.
    """
    import pyarrow as pa

    keeps_end = isinstance(method, KeepsEnd) and method.keeps_end
    tally = _Tally(row_limit(method), keeps_end=keeps_end)
    schema = pa.schema([(column, pa.list_(pa.int32())) for column in COLUMNS])
    batches = []
    for start in range(0, len(examples), BATCH_ROWS):
        results = _encode_batch(examples[start : start + BATCH_ROWS], method, tokenizer)
        good = list(tally.take(start, results, tokenizer))
        arrays = {column: [row[column] for row in good] for column in COLUMNS}
        batches.append(pa.table(arrays, schema=schema))
    return tally.finish(pa.concat_tables(batches) if batches else schema.empty_table())


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


@dataclass
class _Tally:
    """Count over the batches of one split."""

    limit: int | None
    keeps_end: bool = field(kw_only=True)
    kept: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    needed: list[int] = field(default_factory=list)
    double_bos: list[bool] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: int | None = None
    num_tokens: int = 0
    num_trained_tokens: int = 0
    num_truncated: int = 0
    num_ended: int = 0

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
            row = {column: np.asarray(result[column], np.int32) for column in COLUMNS}
            self.index.append(at)
            self.double_bos.append(has_double_bos(result["input_ids"], tokenizer))
            if self._count(at, row["labels"]):
                yield row

    def _count(self, at: int, labels: np.ndarray) -> bool:
        length = len(labels)
        limit = length if self.limit is None else self.limit
        trained = (labels != IGNORED).nonzero()[0]
        self.lengths.append(length)
        if not len(trained):
            self.needed.append(0)
            return False
        first, last = int(trained[0]), int(trained[-1])
        self.needed.append(length - last if self.keeps_end else first + 1)
        start = max(length - limit, 0) if self.keeps_end else 0
        num_trained = int(((trained >= start) & (trained < start + limit)).sum())
        if not num_trained:
            return False
        self.kept.append(at)
        self.num_tokens += min(length, limit)
        self.num_trained_tokens += num_trained
        self.num_truncated += length > limit
        self.num_ended += start <= last < start + limit
        return True

    def finish(self, table: pa.Table) -> EncodedRows:
        """Freeze the counts."""
        import numpy as np

        measured = Measured(
            index=np.asarray(self.index, np.int64),
            length=np.asarray(self.lengths, np.int64),
            needed=np.asarray(self.needed, np.int64),
            is_double_bos=np.asarray(self.double_bos, bool),
        )
        return EncodedRows(
            table=table,
            kept=self.kept,
            measured=measured,
            dropped=dict(self.dropped),
            first_dropped=self.first_dropped,
            num_tokens=self.num_tokens,
            num_trained_tokens=self.num_trained_tokens,
            num_truncated=self.num_truncated,
            num_ended=self.num_ended,
        )
