"""Cut texts into what BERT reads: pairs of segments, half of them apart, or blocks of sentences.

A text is a document, and its sentences are the smallest pieces that a segment begins with. All
segments are spans of one long array of tokens, so that a corpus is cut without being copied.

Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from peftkit.plugins import Row

WORD, SENTENCE = 1, 2
"""What a token begins, in the column `starts`; 0 where it goes on within a word."""

_BOUNDARY = re.compile(
    r"(?<=[.!?])(?=\s)"  # a sentence's end
    r"|(?<=[\u3002\uff01\uff1f])"  # the same in Chinese and Japanese, where no space follows
    r"|(?=\n\s*\n)"  # a paragraph's
    r"|(?=\n\s+\S)|(?=\n[^\w\s])"  # an item of a list, an indented or an underlined line
)


Span = tuple[int, int]
"""Where a segment begins and ends in a corpus."""


@dataclass(frozen=True)
class Spans:
    """Place the two segments of a pair in a corpus."""

    first: Span
    second: Span
    is_random: bool
    """Whether the second is of another text, and does not follow the first."""


@dataclass(frozen=True)
class Corpus:
    """Hold all texts as one array of tokens."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    """`WORD`, `SENTENCE` or 0 for each token."""
    texts: tuple[NDArray[np.int64], ...]
    """Of each text, where its pieces begin, and its end."""


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences, list items and headings; joined they are the text."""
    found: list[str] = []
    for piece in _BOUNDARY.split(text):
        if found and not (piece.strip() and found[-1].strip()):
            found[-1] += piece  # empty lines go with the sentence before them
        else:
            found.append(piece)
    return found if text.strip() else []


def encode_documents(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[Row | DataError]:
    """Encode texts sentence by sentence, without the tokenizer's special tokens.

    Returns: `input_ids`, equal `labels`, and `starts`, which says what each token begins.
    """
    sentences = [split_sentences(text) for text in texts]
    flat = [sentence for found in sentences for sentence in found]
    if not flat:
        return [_too_short(0) for _ in texts]
    encoded = tokenizer(flat, add_special_tokens=False, verbose=False)
    rows: list[Row | DataError] = []
    at = 0
    for found in sentences:
        ids: list[int] = []
        starts: list[int] = []
        for number in range(at, at + len(found)):
            ids += encoded["input_ids"][number]
            starts += _starts(encoded, number, is_fast=tokenizer.is_fast)
        at += len(found)
        row = {"input_ids": ids, "labels": list(ids), "starts": starts}
        rows.append(row if len(ids) > 1 else _too_short(len(ids)))
    return rows


def _too_short(num_tokens: int) -> DataError:
    return DataError(f"has {num_tokens} tokens, too few to mask one beside another")


def _starts(encoded: Any, number: int, *, is_fast: bool) -> list[int]:
    """Say what each token of a sentence begins; without word numbers each is a word."""
    ids = encoded["input_ids"][number]
    words = encoded.word_ids(number) if is_fast else list(range(len(ids)))
    starts = [WORD if at == 0 or words[at - 1] != word else 0 for at, word in enumerate(words)]
    return [SENTENCE, *starts[1:]] if starts else starts


def corpus_of(rows: Dataset, longest_piece: int) -> Corpus:
    """Lay encoded rows side by side; a sentence that is longer is several pieces."""
    import numpy as np

    ids, lengths = _flat(rows, "input_ids")
    starts, _ = _flat(rows, "starts")
    ends = np.cumsum(lengths)
    begins = np.flatnonzero(starts == SENTENCE)
    places = np.searchsorted(begins, np.append(ends - lengths, len(ids)))
    texts = tuple(
        _pieces(begins[places[at] : places[at + 1]], int(end), longest_piece)
        for at, end in enumerate(ends)
    )
    return Corpus(ids, starts, texts)


def _flat(rows: Dataset, column: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    import numpy as np
    import pyarrow as pa

    found = rows.with_format("arrow")[:][column]
    whole = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    values = whole.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    return values, whole.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)


def _pieces(begins: NDArray[np.int64], end: int, longest: int) -> NDArray[np.int64]:
    import numpy as np

    bounds = np.append(begins, end)
    if not len(begins) or np.diff(bounds).max() <= longest:
        return bounds
    parts = [np.arange(one, other, longest) for one, other in pairwise(bounds)]
    return np.append(np.concatenate(parts), end)


def pair_spans(
    corpus: Corpus, room: int, rng: np.random.Generator, *, short_seq_prob: float
) -> Iterator[Spans]:
    """Cut every text into pairs of segments whose second follows the first, or is of another text.

    A pair takes as many sentences as fill it, and parts them at one of their beginnings. Half of
    the pairs then change their second segments among themselves, each for one about as long of
    another text. BERT draws it from anywhere, and always where a sentence is left over; of short
    texts most are, and a long second segment would give away that it follows.

    Args:
        room: tokens of both segments together.
        short_seq_prob: share of pairs that are shorter, of a random length.

    Raises:
        DataError: there is but one text.
    """
    if len(corpus.texts) < 2:
        raise DataError(
            "a random next sentence is of another text, and there is one text only",
            hint="give it several texts, or use method: pretrain_mlm, which needs no pairs",
        )
    found = [
        (number, first, second)
        for number, bounds in enumerate(corpus.texts)
        for first, second in _part(bounds, room, rng, short_seq_prob)
    ]
    chosen = rng.permutation(len(found)) < len(found) / 2
    seconds = _exchange(found, chosen, rng)
    for (_, first, second), other in zip(found, seconds, strict=True):
        yield Spans(*shorten(first, other or second, room, rng), other is not None)


def _part(
    bounds: NDArray[np.int64], room: int, rng: np.random.Generator, short_seq_prob: float
) -> Iterator[tuple[Span, Span]]:
    """Part a text into segments that follow each other; a lone sentence is parted within."""
    first, num_pieces = 0, len(bounds) - 1
    while first < num_pieces:
        is_short = rng.random() < short_seq_prob
        target = int(rng.integers(2, room + 1)) if is_short else room
        last = first + 1
        while last < num_pieces and bounds[last] - bounds[first] < target:
            last += 1
        begin, end = int(bounds[first]), int(bounds[last])
        if last - first > 1:
            cut = int(bounds[first + int(rng.integers(1, last - first))])
            yield (begin, cut), (cut, end)
        elif end - begin > 1:
            cut = int(rng.integers(begin + 1, end))
            yield (begin, cut), (cut, end)
        first = last


def _exchange(
    found: Sequence[tuple[int, Span, Span]], chosen: NDArray[np.bool_], rng: np.random.Generator
) -> list[Span | None]:
    """Give each chosen pair the second segment of the next longer one that is of another text."""
    import numpy as np

    lengths = np.array([second[1] - second[0] for _, _, second in found])
    # Of one length in no order, so that neighbours are not of one text.
    order = np.lexsort((rng.random(len(found)), lengths))
    order = order[chosen[order]].tolist()
    seconds: list[Span | None] = [None] * len(found)
    for place, at in enumerate(order):
        others = (order[(place + step) % len(order)] for step in range(1, len(order)))
        taken = next((other for other in others if found[other][0] != found[at][0]), None)
        seconds[at] = None if taken is None else found[taken][2]
    return seconds


def shorten(first: Span, second: Span, room: int, rng: np.random.Generator) -> tuple[Span, Span]:
    """Take tokens off the longer of two spans until both fit, each from its front or its back."""
    lengths = [first[1] - first[0], second[1] - second[0]]
    excess = sum(lengths) - room
    if excess <= 0:
        return first, second
    shorter = min(*lengths, room // 2)
    left = (shorter, room - shorter) if lengths[0] < lengths[1] else (room - shorter, shorter)
    ends = []
    for (begin, end), kept in zip((first, second), left, strict=True):
        surplus = end - begin - kept
        front = int(rng.binomial(surplus, 0.5)) if surplus else 0
        ends.append((begin + front, begin + front + kept))
    return ends[0], ends[1]


def block_spans(corpus: Corpus, room: int) -> Iterator[Span]:
    """Cut the joined texts into blocks, each as full as can be.

    Source: Liu et al. 2019, arXiv 1907.11692, section 4.2, FULL-SENTENCES.
    """
    for begin in range(0, len(corpus.ids), room):
        yield begin, min(begin + room, len(corpus.ids))
