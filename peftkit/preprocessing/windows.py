"""Cut a question's long context into windows that overlap, each with its place in the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftkit.errors import ArtefactError, DataError
from peftkit.plugins import Row, Span, Spans
from peftkit.preprocessing.chat_labels import TemplateError
from peftkit.preprocessing.classification_rows import TYPES, has_types, separates

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Offset = tuple[int, int]
"""First character of a token in its text, and the one behind its last."""


@dataclass(frozen=True)
class Window:
    """Hold one row of a question: the question, and a stretch of its context."""

    row: Row
    """What a model reads: `input_ids`, and `token_type_ids` where the tokenizer has them."""
    first: int
    """Token at which the context begins in the row."""
    offsets: tuple[Offset, ...]
    """Of each token of the context, in characters of the whole context."""
    covers: Offset
    """Characters of the context that it holds, those included that have no token at either end."""
    no_answer: int
    """Token that stands for none: the classifier's token, or else the first one."""

    def find(self, span: Span) -> tuple[int, int] | None:
        """Return the first and last token of the row that hold a stretch of the context.

        They are the fewest that cover it; None where the window does not hold all of it.
        """
        if span.start < self.covers[0] or span.end > self.covers[1]:
            return None
        inside = [
            at
            for at, (start, end) in enumerate(self.offsets)
            if start < span.end and end > span.start
        ]
        return (self.first + inside[0], self.first + inside[-1]) if inside else None

    def labeled(self, span: Span | None) -> Row:
        """Return the row with the positions that are trained: those of a stretch, or of none."""
        start, end = (self.find(span) if span else None) or (self.no_answer, self.no_answer)
        return {**self.row, "start_positions": start, "end_positions": end}


def encode_windows(
    examples: Sequence[Spans],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    doc_stride: int,
) -> list[list[Row] | DataError]:
    """Return each example's rows with the positions of its first answer.

    A window that does not hold the whole answer is trained to give none, as SQuAD's own
    baselines are.
    """
    cut = cut_windows(
        [example.texts for example in examples],
        tokenizer,
        max_length=max_length,
        doc_stride=doc_stride,
    )
    return [
        windows if isinstance(windows, DataError) else _label(windows, example, doc_stride)
        for windows, example in zip(cut, examples, strict=True)
    ]


def _label(windows: Sequence[Window], example: Spans, doc_stride: int) -> list[Row] | DataError:
    answer = example.spans[0] if example.spans else None
    if answer and not any(window.find(answer) for window in windows):
        return DataError(
            "every window cuts the answer, which has more tokens than the doc_stride"
            f" {doc_stride} that two of them share"
        )
    return [window.labeled(answer) for window in windows]


def cut_windows(
    pairs: Sequence[tuple[str, ...]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    doc_stride: int,
) -> list[list[Window] | DataError]:
    """Cut each question's context into windows of `max_length` tokens, the question's included.

    Args:
        pairs: question and context.
        doc_stride: tokens of the context that two windows share.

    Raises:
        ArtefactError: the tokenizer does not say which characters a token stands for.
        TemplateError: nothing can be put between question and context.
    """
    if not tokenizer.is_fast:
        raise ArtefactError(
            f"the tokenizer {type(tokenizer).__name__} does not say which characters a token"
            " stands for, and an answer is a stretch of characters",
            hint="use a model with a tokenizer.json",
        )
    if not pairs:
        return []
    cut = _Native(tokenizer) if separates(tokenizer) else _Joined(tokenizer)
    counts = [len(ids) for ids in cut.encode_questions([question for question, _ in pairs])]
    rooms = [max_length - count - cut.num_special for count in counts]
    fits = [at for at, room in enumerate(rooms) if room > doc_stride]
    windows = dict(zip(fits, cut.cut([pairs[at] for at in fits], max_length, doc_stride),
                       strict=True))  # fmt: skip
    return [
        (windows[at] or DataError("the context has no token"))
        if at in windows
        else _no_room(counts[at], max(rooms[at], 0), doc_stride)
        for at in range(len(pairs))
    ]


def _no_room(count: int, room: int, doc_stride: int) -> DataError:
    return DataError(
        f"the question has {count} tokens and leaves {room} for its context, not more than the"
        f" doc_stride {doc_stride} that two windows share"
    )


class _Native:
    """Let a tokenizer cut that puts something of its own between two texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.num_special = tokenizer.num_special_tokens_to_add(pair=True)
        self._has_types = has_types(tokenizer)

    def encode_questions(self, questions: Sequence[str]) -> Any:
        """Return each question's tokens."""
        return self._tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"]

    def cut(
        self, pairs: Sequence[tuple[str, ...]], max_length: int, doc_stride: int
    ) -> list[list[Window]]:
        """Return the windows of each pair."""
        if not pairs:
            return []
        with _truncation_kept(self._tokenizer):
            encoded = self._tokenizer(
                *map(list, zip(*pairs, strict=True)), truncation="only_second",
                max_length=max_length, stride=doc_stride, return_overflowing_tokens=True,
                return_offsets_mapping=True, padding=False, verbose=False,
            )  # fmt: skip
        found: list[list[Window]] = [[] for _ in pairs]
        for number, of in enumerate(encoded["overflow_to_sample_mapping"]):
            sides = encoded.sequence_ids(number)
            if 1 in sides:
                first, last = sides.index(1), len(sides) - sides[::-1].index(1)
                offsets = _placed(encoded["offset_mapping"][number][first:last])
                found[of].append(self._window(encoded, number, first, offsets))
        return [
            _reaching_ends(windows, len(context))
            for windows, (_, context) in zip(found, pairs, strict=True)
        ]

    def _window(self, encoded: Any, number: int, first: int, offsets: tuple[Offset, ...]) -> Window:
        ids = encoded["input_ids"][number]
        types = {TYPES: encoded[TYPES][number]} if self._has_types else {}
        covers = (offsets[0][0], offsets[-1][1])
        return Window(
            {"input_ids": ids, **types}, first, offsets, covers, _no_answer(ids, self._tokenizer)
        )


class _Joined:
    """Put a separator between two texts for a tokenizer that puts nothing there, and cut."""

    num_special = 1

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        separator = tokenizer.sep_token_id
        self._separator = tokenizer.eos_token_id if separator is None else separator
        if self._separator is None:
            raise TemplateError(
                f"the tokenizer of {tokenizer.name_or_path or 'this model'} puts nothing between"
                " two texts, and has no token that could stand there",
                hint="name one as sep_token in its tokenizer_config.json",
            )
        self._tokenizer = tokenizer

    def encode_questions(self, questions: Sequence[str]) -> Any:
        """Return each question's tokens, and those that begin a text."""
        return self._tokenizer(questions, verbose=False)["input_ids"]

    def cut(
        self, pairs: Sequence[tuple[str, ...]], max_length: int, doc_stride: int
    ) -> list[list[Window]]:
        """Return the windows of each pair."""
        if not pairs:
            return []
        questions, contexts = map(list, zip(*pairs, strict=True))
        encoded = self._tokenizer(
            contexts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            _reaching_ends(
                list(self._windows(asked, ids, _placed(offsets), max_length, doc_stride)),
                len(context),
            )
            for asked, ids, offsets, context in zip(
                self.encode_questions(questions), encoded["input_ids"],
                encoded["offset_mapping"], contexts, strict=True,
            )
        ]  # fmt: skip

    def _windows(
        self, asked: list[int], ids: list[int], offsets: tuple[Offset, ...], max_length: int,
        doc_stride: int,
    ) -> Iterator[Window]:  # fmt: skip
        head = [*asked, self._separator]
        room = max_length - len(head)
        for start in range(0, max(len(ids) - doc_stride, 1) if ids else 0, room - doc_stride):
            kept = slice(start, start + room)
            covers = (offsets[kept][0][0], offsets[kept][-1][1])
            row = {"input_ids": [*head, *ids[kept]]}
            yield Window(row, len(head), offsets[kept], covers, _no_answer(head, self._tokenizer))


@contextmanager
def _truncation_kept(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Put back how a tokenizer cuts: it remembers each call's way, and would be saved with it."""
    backend = tokenizer.backend_tokenizer
    before = backend.truncation
    try:
        yield
    finally:
        if before is None:
            backend.no_truncation()
        else:
            backend.enable_truncation(**before)


def _reaching_ends(windows: list[Window], num_chars: int) -> list[Window]:
    """Let the first window begin where its context does, and the last one end there."""
    if windows:
        windows[0] = replace(windows[0], covers=(0, windows[0].covers[1]))
        windows[-1] = replace(windows[-1], covers=(windows[-1].covers[0], num_chars))
    return windows


def _placed(offsets: Sequence[Sequence[int]]) -> tuple[Offset, ...]:
    """Return offsets as pairs; a token of no characters stands where the one before it ends."""
    placed: list[Offset] = []
    for start, end in offsets:
        at = placed[-1][1] if placed else 0
        placed.append((start, end) if end > start else (at, at))
    return tuple(placed)


def _no_answer(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    token = tokenizer.cls_token_id
    return ids.index(token) if token is not None and token in ids else 0


def pad_windows(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> BatchEncoding:
    """Pad rows at their end, whichever side the tokenizer pads: positions count from the start."""
    return tokenizer.pad(list(rows), padding_side="right", return_tensors="pt")
