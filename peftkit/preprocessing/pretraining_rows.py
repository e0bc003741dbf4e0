"""Make the rows that an encoder is pretrained on: spans of a corpus, their words masked.

Everything that chance decides is decided here, before training: what is trained can be looked at,
and a run that is stopped and resumed reads what one that was not would have read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.preprocessing.masked_words import Masking
from peftkit.preprocessing.segment_pairs import Corpus, Spans, block_spans, corpus_of, pair_spans

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    Column = Iterable[NDArray[np.int32]]

SPECIAL = -1
"""Stands in `starts` for the special tokens, which are never masked."""


@dataclass(frozen=True)
class Marks:
    """Hold the special tokens that a row is put together with."""

    begin: int
    part: int
    mask: int


def marks_of(tokenizer: PreTrainedTokenizerBase) -> Marks:
    """Return a tokenizer's special tokens.

    Raises:
        UsageError: it lacks one, as those of decoders do.
    """
    names = ("cls_token", "sep_token", "mask_token")
    lacking = [name for name in names if getattr(tokenizer, name) is None]
    if lacking:
        raise UsageError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no"
            f" {' and no '.join(lacking)}, which masked words need",
            hint="a decoder's words are trained by pretrain_lm; for an encoder, name the tokens in"
            " its tokenizer_config.json",
        )
    return Marks(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)


@dataclass(frozen=True)
class RowMaker:
    """Cut encoded texts into rows and mask them."""

    max_length: int
    """Tokens of a row, the special ones included."""
    marks: Marks
    masking: Masking
    seed: int
    short_seq_prob: float = 0.1
    dupe_factor: int = 1
    """How many times the texts are cut and masked, each time anew."""

    def pairs(self, rows: Dataset) -> Dataset:
        """Return pairs: `[CLS] A [SEP] B [SEP]`, with `next_sentence_label` 1 for a random B."""

        room = self.max_length - 3
        corpus = corpus_of(rows, max(room // 2, 1))

        def made(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
            for spans in pair_spans(corpus, room, rng, short_seq_prob=self.short_seq_prob):
                yield self._pair(corpus, spans, rng)

        return self._gather(made)

    def blocks(self, rows: Dataset) -> Dataset:
        """Return `[CLS] block [SEP]` of joined texts; a separator stands between two of them."""

        room = self.max_length - 2
        corpus = _parted(corpus_of(rows, room), self.marks.part)

        def made(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
            for span in block_spans(corpus, room):
                yield self._masked(*self._join(corpus, [span]), rng)

        return self._gather(made)

    def _pair(self, corpus: Corpus, spans: Spans, rng: np.random.Generator) -> dict[str, Any]:
        import numpy as np

        row = self._masked(*self._join(corpus, [spans.first, spans.second]), rng)
        num_second = spans.second[1] - spans.second[0] + 1
        types = np.zeros(len(row["input_ids"]), np.int32)
        types[-num_second:] = 1
        return {**row, "token_type_ids": types, "next_sentence_label": int(spans.is_random)}

    def _join(
        self, corpus: Corpus, spans: list[tuple[int, int]]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        import numpy as np

        ids: list[Any] = [[self.marks.begin]]
        starts: list[Any] = [[SPECIAL]]
        for begin, end in spans:
            ids += [corpus.ids[begin:end], [self.marks.part]]
            starts += [corpus.starts[begin:end], [SPECIAL]]
        return np.concatenate(ids).astype(np.int32), np.concatenate(starts).astype(np.int32)

    def _masked(
        self, ids: NDArray[np.int32], starts: NDArray[np.int32], rng: np.random.Generator
    ) -> dict[str, Any]:
        read, labels = self.masking.mask(ids, starts, rng)
        return {"input_ids": read, "labels": labels}

    def _gather(self, made: Any) -> Dataset:
        import numpy as np

        rngs = (np.random.default_rng([self.seed, number]) for number in range(self.dupe_factor))
        return _to_dataset(row for rng in rngs for row in made(rng))


def _parted(corpus: Corpus, part: int) -> Corpus:
    """Put a separator before every text but the first."""
    import numpy as np

    begins = np.array([bounds[0] for bounds in corpus.texts[1:] if len(bounds)], np.int64)
    return replace(
        corpus,
        ids=np.insert(corpus.ids, begins, part),
        starts=np.insert(corpus.starts, begins, SPECIAL),
    )


def _to_dataset(rows: Iterable[dict[str, Any]]) -> Dataset:
    """Gather rows into Arrow, a thousand times smaller than Python's integers would be at once."""
    import pyarrow as pa

    from peftkit.sources.rows import to_dataset

    tables, held = [], []
    for row in rows:
        held.append(row)
        if len(held) == 5000:
            tables.append(_to_table(held))
            held = []
    if held or not tables:
        tables.append(_to_table(held))
    return to_dataset(pa.concat_tables(tables))


def _to_table(rows: list[dict[str, Any]]) -> Any:
    import numpy as np
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name, value in (rows[0] if rows else {"input_ids": [], "labels": []}).items():
        values = [row[name] for row in rows]
        if isinstance(value, int):
            columns[name] = pa.array(values, pa.int32())
            continue
        ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
        flat = np.concatenate(values) if values else np.empty(0, np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(flat, pa.int32()))
    return pa.table(columns)
