"""Pairs of sentences whose likeness is the share of words that they have in common."""

from __future__ import annotations

from peftkit.sources.embedded import EmbeddedConfig, EmbeddedSource
from peftkit.sources.embedded_likeness import splice, with_likeness


def test_sentences_are_as_alike_as_the_share_of_their_words_that_was_kept() -> None:
    plain = EmbeddedSource(EmbeddedConfig("docstring-summaries"))
    source = EmbeddedSource(EmbeddedConfig("docstring-summaries", likeness=True))
    for split in source.splits():
        found = source.load(split).to_list()
        assert [row["summary"] for row in found] == plain.load(split)["summary"][:]
        grades = [round(row["likeness"]) for row in found]
        assert min(map(grades.count, range(6))) > len(found) / 12
        for row in found:
            own, other = row["summary"].split(), row["other"].split()
            num_kept = round(row["likeness"] / 5 * len(own))
            is_head = own[:num_kept] == other[:num_kept]
            assert is_head or own[len(own) - num_kept :] == other[len(other) - num_kept :]
            assert (row["likeness"] == 5) == (own == other)


def test_the_words_of_the_next_sentence_stand_where_none_was_kept() -> None:
    assert splice("a b c".split(), "x y z".split(), 1) == ["a", "y", "z"]
    assert splice("a b c".split(), "x y z w".split(), 3) == ["a", "b", "c"]
    rows = [{"summary": "One two three four five."}, {"summary": "Six seven eight nine ten."}]
    assert with_likeness(rows) == with_likeness(rows)
