"""Thresholds: every breach with its numbers, its row and a remedy that works."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from peftkit.errors import DataError
from peftkit.preprocessing.audit import SplitAudit
from peftkit.preprocessing.breaches import Limits, Measured, find_breaches, raise_breaches
from peftkit.recipe.schema import AuditSection

FINE = SplitAudit("train", 10, 10, {}, 0, 0, 100, 40, {"p50": 10, "p90": 10, "p99": 10, "max": 10},
                  10, max_length=32)  # fmt: skip
LIMITS = Limits(AuditSection(), 64, "method.sft.max_length")


def measured(lengths, needed=None) -> Measured:
    return Measured(
        np.arange(len(lengths)) + 100,
        np.asarray(lengths),
        np.asarray(needed if needed is not None else [1] * len(lengths)),
        np.zeros(len(lengths), bool),
    )


def breaches(audit=FINE, rows=None, limits=LIMITS, **changes):
    rows = measured([10] * 10) if rows is None else rows
    found = find_breaches(dataclasses.replace(audit, **changes), rows, limits)
    return [str(breach) for breach in found]


def test_good_data_breaks_nothing():
    assert breaches() == []
    raise_breaches((), where="r.yaml:5 data")


def test_dropped_rows_are_counted_by_reason():
    assert breaches(
        num_rows=20,
        dropped={"summary is empty": 2, "document is null": 8},
        limits=dataclasses.replace(LIMITS, first_dropped=3),
    ) == [
        "train: 10 of 20 rows cannot be used (50.0%, at most 5.0%):"
        " 8 document is null; 2 summary is empty; the first is row 3\n"
        "    try: mend or remove those rows, or raise data.audit.max_dropped"
    ]


def test_a_split_without_usable_rows_breaks_any_threshold():
    lenient = Limits(AuditSection(1.0, 1.0, 1.0), None, "method.sft.max_length", first_dropped=0)
    assert breaches(
        num_rows=2, num_used=0, dropped={"document is null": 2}, rows=measured([]), limits=lenient
    ) == [
        "train: 2 of 2 rows cannot be used (100.0%, at most 100.0%): 2 document is null;"
        " the first is row 0\n    try: check data.task against the columns"
    ]
    assert breaches(num_rows=0, num_used=0, rows=measured([]), limits=lenient) == [
        "train: the split has no rows\n    try: check the file that it names"
    ]


def test_the_remedy_for_truncation_keeps_enough_rows():
    lengths = [10, 20, 30, 40, 50, 33, 36, 31, 12, 60]
    assert breaches(rows=measured(lengths)) == [
        "train: 5 of 10 rows are longer than method.sft.max_length 32 (50.0%, at most 20.0%);"
        " the first is row 103 with 40 tokens\n"
        "    try: method.sft.max_length=40 (60 for every row), or raise data.audit.max_truncated"
    ]
    assert sum(length > 40 for length in lengths) <= 0.2 * len(lengths)
    (there,) = breaches(rows=measured(lengths), limits=dataclasses.replace(LIMITS, length_line=19))
    assert "longer than method.sft.max_length 32 on line 19 (50.0%" in there


def test_a_remedy_beyond_the_model_says_so():
    found = breaches(rows=measured([100] * 10))
    assert found == [
        "train: 10 of 10 rows are longer than method.sft.max_length 32 (100.0%, at most 20.0%);"
        " the first is row 100 with 100 tokens\n"
        "    try: method.sft.max_length=100 would do, but the model has 64 positions:"
        " shorten those rows, or raise data.audit.max_truncated"
    ]


def test_rows_without_a_trained_token_name_what_they_need():
    rows = measured([40] * 10, [40, 1, 1, 1, 1, 1, 1, 1, 39, 38])
    found = breaches(
        rows=rows,
        num_used=7,
        num_fully_masked=3,
        limits=dataclasses.replace(LIMITS, audit=AuditSection(max_truncated=1.0)),
    )
    assert found == [
        "train: 3 of 10 rows have no trained token within method.sft.max_length 32"
        " (30.0%, at most 1.0%); the first is row 100, which needs 40\n"
        "    try: method.sft.max_length=40 (40 for every row), or raise data.audit.max_masked"
    ]


def test_rows_that_are_never_trained_point_at_the_template():
    assert breaches(
        rows=measured([10] * 4, [1, 0, 0, 1]), num_used=2, num_fully_masked=2, max_length=None
    ) == [
        "train: 2 of 4 rows have no trained token (50.0%, at most 1.0%); the first is row 101\n"
        "    try: check the chat template's {% generation %} marks with `peftkit data`"
    ]


def test_positions_are_compared_with_what_is_read():
    beyond = measured([100] + [10] * 9)
    assert breaches(rows=beyond, max_length=128) == [
        "train: method.sft.max_length is 128 and the longest row has 100 tokens,"
        " but the model has 64 positions (max_position_embeddings)\n"
        "    try: method.sft.max_length=64, or a model with more positions"
    ]
    assert breaches(rows=beyond, max_length=None) == []  # they are joined and cut into blocks
    joined = dataclasses.replace(beyond, longest_arranged=80)
    assert breaches(rows=joined, max_length=None) == [
        "train: the trainer's longest row has 80 tokens,"
        " but the model has 64 positions (max_position_embeddings)\n"
        "    try: method.sft.max_length=64, or a model with more positions"
    ]
    assert breaches(rows=beyond, max_length=64) == []
    assert breaches(max_length=1024) == []  # a default that no row reaches
    stated = dataclasses.replace(LIMITS, is_length_stated=True)
    assert len(breaches(max_length=1024, limits=stated)) == 1
    unknown = dataclasses.replace(LIMITS, max_positions=None)
    assert breaches(rows=beyond, max_length=128, limits=unknown) == []


def test_two_bos_tokens_and_leaks():
    doubled = dataclasses.replace(measured([10] * 3), is_double_bos=np.array([False, True, True]))
    limits = dataclasses.replace(LIMITS, bos_token="<s>")
    assert breaches(rows=doubled, num_double_bos=2, limits=limits) == [
        "train: 2 rows begin with two '<s>', one of their own and one that the tokenizer adds;"
        " the first is row 101\n    try: remove '<s>' from the rows"
    ]
    strict = dataclasses.replace(LIMITS, audit=AuditSection(max_leaked=0.1))
    assert breaches(num_leaked=2) == []
    assert breaches(num_leaked=2, limits=strict) == [
        "train: the prompts of 2 of 10 rows also stand in train (20.0%, at most 10.0%)\n"
        "    try: remove them from one of the two, or cut the split from train by a percentage"
    ]


def test_all_breaches_come_in_one_error():
    found = [
        *find_breaches(dataclasses.replace(FINE, num_rows=0), measured([]), LIMITS),
        *find_breaches(dataclasses.replace(FINE, split="test"), measured([100] * 10), LIMITS),
    ]
    with pytest.raises(DataError) as caught:
        raise_breaches(found, where="r.yaml:5 data")
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    assert lines[0] == "r.yaml:5 data: the audit finds 2 thresholds broken"
    assert lines[1:3] == [
        "  train: the split has no rows",
        "    try: check the file that it names",
    ]


def test_rows_that_the_recipe_leaves_out_break_nothing_unless_none_is_left():
    left_out = {"longer than max_length 32": 9}
    assert breaches(num_rows=10, num_used=1, skipped=left_out) == []
    assert breaches(
        num_rows=10, num_used=0, skipped=left_out, dropped={"summary is null": 1}, rows=measured([])
    ) == [
        "train: no row is left of 10: 9 longer than max_length 32; 1 summary is null\n"
        "    try: a larger method.sft.max_length, or data.rows={}"
    ]
