"""Segment pairs are contiguous, half of them random, of another text, and never too long."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.errors import DataError
from peftkit.preprocessing.segment_pairs import (
    SENTENCE,
    WORD,
    block_spans,
    corpus_of,
    encode_documents,
    pair_spans,
    shorten,
    split_sentences,
)
from peftkit.preprocessing.wordpiece import train_wordpiece

TEXT = "sum(a, b)\n\nReturn the sum. It is a number!\n\n- one item\n- another 3.14 item\n\n    code"


def corpus(*texts: tuple[int, ...], longest: int = 10**6):
    """Make a corpus of texts, each of sentences of so many tokens, all tokens different."""
    rows = [
        {"starts": [v for size in sizes for v in (SENTENCE, *[WORD] * (size - 1))]}
        for sizes in texts
    ]
    at = 0
    for row in rows:
        row["input_ids"] = list(range(at, at + len(row["starts"])))
        at += len(row["starts"])
    return corpus_of(Dataset.from_list(rows), longest)


def test_sentences_join_to_the_text_and_end_where_a_reader_would_end_them() -> None:
    pieces = split_sentences(TEXT)
    assert "".join(pieces) == TEXT
    assert [piece.strip() for piece in pieces] == [
        "sum(a, b)", "Return the sum.", "It is a number!", "- one item", "- another 3.14 item",
        "code",
    ]  # fmt: skip


def test_a_text_keeps_every_token_and_says_what_each_begins() -> None:
    tokenizer = train_wordpiece([TEXT], vocab_size=60, max_length=64)
    (row,) = encode_documents([TEXT], tokenizer)
    assert row["input_ids"] == tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert row["labels"] == row["input_ids"]
    words = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert [start == 0 for start in row["starts"]] == [word.startswith("##") for word in words]
    assert row["starts"].count(SENTENCE) == len(split_sentences(TEXT))
    short, empty = encode_documents(["a", " "], tokenizer)
    assert "has 1 tokens, too few" in short.message
    assert "has 0 tokens, too few" in empty.message


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=2, max_size=12),
    st.integers(4, 40),
    st.floats(0, 1),
)
def test_pairs_are_contiguous_fit_and_tell_apart_what_is_random(sizes, room, short) -> None:
    made = corpus(*map(tuple, sizes), longest=max(room // 2, 1))
    text_of = np.repeat(np.arange(len(sizes)), [sum(one) for one in sizes])
    for spans in pair_spans(made, room, np.random.default_rng(0), short_seq_prob=short):
        (a, b), (c, d) = spans.first, spans.second
        assert b - a >= 1
        assert d - c >= 1
        assert b - a + d - c <= room
        assert text_of[a] == text_of[b - 1]
        assert text_of[c] == text_of[d - 1]
        assert (text_of[a] != text_of[c]) == spans.is_random
        assert spans.is_random or c >= b


def test_no_length_tells_whether_a_segment_follows() -> None:
    rng = np.random.default_rng(0)
    sizes = [tuple(rng.integers(2, 30, size=rng.integers(1, 12))) for _ in range(3000)]
    found = list(pair_spans(corpus(*sizes), 100, rng, short_seq_prob=0.1))
    for side in ("first", "second"):
        lengths = np.array([np.diff(getattr(one, side))[0] for one in found])
        is_random = np.array([one.is_random for one in found])
        for part in np.array_split(np.argsort(lengths), 8):
            assert abs(is_random[part].mean() - 0.5) < 0.06


def test_half_of_the_pairs_are_random_however_short_texts_are() -> None:
    for sizes in ((3,), (4, 6), (5, 9, 7, 12)):
        made = corpus(*[sizes] * 1500)
        rng = np.random.default_rng(0)
        found = [one.is_random for one in pair_spans(made, 24, rng, short_seq_prob=0.1)]
        assert len(found) >= 1500
        assert abs(np.mean(found) - 0.5) < 0.001


def test_without_a_cut_nothing_of_a_text_is_lost_or_read_twice() -> None:
    made = corpus((5, 4), (6, 6))
    followed = [
        spans
        for seed in range(20)
        for spans in pair_spans(made, 100, np.random.default_rng(seed), short_seq_prob=0.0)
        if not spans.is_random
    ]
    assert {spans.first[1] == spans.second[0] for spans in followed} == {True}
    assert {(spans.first[0], spans.second[1]) for spans in followed} >= {(0, 9), (9, 21)}


def test_the_longer_segment_loses_tokens_at_both_of_its_ends() -> None:
    rng = np.random.default_rng(0)
    kept = [shorten((0, 50), (60, 70), 30, rng) for _ in range(200)]
    assert {(b - a, second) for (a, b), second in kept} == {(20, (60, 70))}
    assert {a == 0 for (a, _), _ in kept} == {False}
    assert {b == 50 for (_, b), _ in kept} == {False}
    assert shorten((0, 9), (20, 40), 11, rng)[0][1] > 0
    assert [b - a for a, b in shorten((0, 30), (40, 70), 11, rng)] == [6, 5]


def test_one_text_has_no_other_and_blocks_need_none() -> None:
    with pytest.raises(DataError, match="there is one text only"):
        list(pair_spans(corpus((5, 5)), 8, np.random.default_rng(0), short_seq_prob=0.1))
    assert list(block_spans(corpus((5, 5)), 4)) == [(0, 4), (4, 8), (8, 10)]
