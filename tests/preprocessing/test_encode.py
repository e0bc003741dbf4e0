"""Encoding counts what is cut, what is masked and what ends, whichever side is cut."""

from __future__ import annotations

import preferences
import pytest

from peftkit.errors import DataError
from peftkit.plugins import CAUSAL_LM, IGNORED, Method, RowCount, Text
from peftkit.preprocessing.chat_labels import TemplateError
from peftkit.preprocessing.encode import encode_rows


class Numbers(Method):
    """A method that encodes `"3 2"` as three ignored tokens, then two trained ones."""

    kind = CAUSAL_LM
    max_length = None

    def encode(self, examples, tokenizer):  # noqa: ARG002
        return [_encode(example.text) for example in examples]


def _encode(text):
    ignored, trained = (int(part) for part in text.split())
    if trained > 100:
        return DataError("too many")
    if trained < 0:
        raise TemplateError("unfit")
    ids = list(range(10, 10 + ignored + trained))
    return [{"input_ids": ids, "labels": [IGNORED] * ignored + ids[ignored:]}]


class Cut(Numbers):
    max_length = 4


class CutStart(Cut):
    keeps_end = True


class Windows(Cut):
    """A method that gives a row for each token of a text."""

    def encode(self, examples, tokenizer):  # noqa: ARG002
        return [
            [{"input_ids": [7], "labels": [int(mark)]} for mark in one.text.split()]
            for one in examples
        ]


class NoBos:
    bos_token_id = None


class Bos:
    bos_token_id = 1


class Pairs(preferences.Pairs):
    """A method whose rows have columns of their own, and begin with two BOS in one answer."""

    def encode(self, examples, tokenizer):  # noqa: ARG002
        return [[{"prompt": [1], "chosen": [2], "rejected": [1, 3]}] for _ in examples]

    def count(self, row):  # noqa: ARG002
        return RowCount(3, 2, 5, 3, is_cut=False, is_ended=True)


def encode(method, *texts):
    return encode_rows([Text(text) for text in texts], method(None), NoBos())


def test_rows_that_are_not_cut():
    found = encode(Numbers, "3 2", "0 6", "4 0")
    assert found.kept == [0, 1]
    assert found.table.to_pylist() == [
        {"input_ids": [10, 11, 12, 13, 14], "labels": [IGNORED] * 3 + [13, 14]},
        {"input_ids": list(range(10, 16)), "labels": list(range(10, 16))},
    ]
    assert (found.num_tokens, found.num_trained_tokens) == (11, 8)
    assert (found.num_truncated, found.num_ended) == (0, 2)
    assert found.measured.needed.tolist() == [4, 1, 0]


def test_rows_cut_at_their_end():
    found = encode(Cut, "3 2", "4 2", "0 4")
    assert found.kept == [0, 2]
    assert found.table.num_rows == 2
    assert (found.num_tokens, found.num_trained_tokens) == (8, 5)
    assert (found.num_truncated, found.num_ended) == (1, 1)
    assert found.measured.length.tolist() == [5, 6, 4]
    assert found.measured.needed.tolist() == [4, 5, 1]


def test_rows_cut_at_their_start():
    found = encode(CutStart, "3 2", "40 2")
    assert found.kept == [0, 1]
    assert (found.num_tokens, found.num_trained_tokens, found.num_ended) == (8, 4, 2)
    assert found.measured.needed.tolist() == [1, 1]


def test_refused_rows_are_counted_and_a_bad_template_is_raised():
    found = encode(Cut, "0 1", "0 101", "0 102")
    assert found.dropped == {"too many": 2}
    assert found.first_dropped == 1
    assert found.measured.index.tolist() == [0]
    with pytest.raises(TemplateError):
        encode(Cut, "0 -1")


def test_an_example_may_give_several_rows_which_remember_it():
    found = encode(Windows, "7 -100 7", "-100", "7")
    assert found.table.num_rows == 3
    assert found.kept == [0, 2]
    assert found.measured.index.tolist() == [0, 0, 0, 1, 2]
    assert found.num_trained_tokens == 3


def test_rows_may_have_columns_of_their_own():
    found = encode_rows([Text("x")], Pairs(), Bos())
    assert found.table.to_pylist() == [{"prompt": [1], "chosen": [2], "rejected": [1, 3]}]
    assert found.measured.is_double_bos.tolist() == [True]
    assert (found.num_tokens, found.num_trained_tokens) == (5, 3)


def test_no_examples_make_an_empty_table():
    found = encode(Cut)
    assert found.table.num_rows == 0
    assert found.table.column_names == ["input_ids", "labels"]
