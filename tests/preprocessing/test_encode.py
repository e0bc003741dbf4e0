"""Encoding counts what is cut, what is masked and what ends, whichever side is cut."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.plugins import Text
from peftkit.preprocessing.chat_labels import IGNORED, TemplateError
from peftkit.preprocessing.encode import encode_rows, row_limit


class Numbers:
    """A method that encodes `"3 2"` as three ignored tokens, then two trained ones."""

    def encode(self, example, tokenizer):  # noqa: ARG002
        ignored, trained = (int(part) for part in example.text.split())
        if trained > 100:
            raise DataError("too many")
        if trained < 0:
            raise TemplateError("unfit")
        ids = list(range(10, 10 + ignored + trained))
        return {"input_ids": ids, "labels": [IGNORED] * ignored + ids[ignored:]}


class Cut(Numbers):
    max_length = 4


class CutStart(Cut):
    keeps_end = True


class Batched(Cut):
    def encode_many(self, examples, tokenizer):
        try:
            return [self.encode(example, tokenizer) for example in examples]
        except TemplateError:
            raise
        except DataError as error:
            return [error] * len(examples)


class NoBos:
    bos_token_id = None


def encode(method, *texts):
    return encode_rows([Text(text) for text in texts], method(), NoBos())


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
    assert row_limit(Numbers()) is None


def test_rows_cut_at_their_end():
    found = encode(Cut, "3 2", "4 2", "0 4")
    assert found.kept == [0, 2]
    assert found.table.num_rows == 2
    assert (found.num_tokens, found.num_trained_tokens) == (8, 5)
    assert (found.num_truncated, found.num_ended) == (1, 1)
    assert found.measured.length.tolist() == [5, 6, 4]
    assert found.measured.needed.tolist() == [4, 5, 1]
    assert row_limit(Cut()) == 4


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


def test_a_method_that_encodes_batches_is_asked_for_batches():
    assert encode(Batched, "0 1", "0 101").dropped == {"too many": 2}
    assert encode(Batched, "0 1", "0 2").kept == [0, 1]


def test_no_examples_make_an_empty_table():
    found = encode(Cut)
    assert found.table.num_rows == 0
    assert found.table.column_names == ["input_ids", "labels"]
