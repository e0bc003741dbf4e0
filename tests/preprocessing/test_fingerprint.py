"""The fingerprint is of numbers, not of how they are stored."""

from __future__ import annotations

from peftkit.preprocessing.fingerprint import fingerprints


def fingerprint(encoded) -> str:
    return fingerprints(encoded)[0]


def test_the_fingerprint_does_not_depend_on_how_numbers_are_stored():
    from datasets import Dataset, Features, Sequence, Value

    rows = {"input_ids": [[1, 2], [3]], "labels": [[-100, 2], []]}

    def stored(kind):
        column = Sequence(Value(kind))
        return Dataset.from_dict(rows, Features({"input_ids": column, "labels": column}))

    assert fingerprint({"train": stored("int32")}) == fingerprint({"train": stored("int64")})
    assert fingerprint({"train": stored("int32")}) != fingerprint({"test": stored("int32")})
    moved = {"input_ids": [[1], [2, 3]], "labels": [[-100, 2], []]}
    assert fingerprint({"train": Dataset.from_dict(moved)}) != fingerprint(
        {"train": stored("int64")}
    )


def test_a_split_alone_has_the_fingerprint_that_it_would_have_by_itself():
    from datasets import Dataset

    train, test = Dataset.from_dict({"a": [1, 2]}), Dataset.from_dict({"a": [3]})
    whole, alone = fingerprints({"train": train, "test": test})
    assert alone == {"train": fingerprint({"train": train}), "test": fingerprint({"test": test})}
    assert whole not in alone.values()
