"""Masking follows BERT's recipe: so many tokens, four in five masked, whole words where asked."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from peftkit.preprocessing.masked_words import Masking, num_predictions

MASK = 3


def masking(**options) -> Masking:
    return Masking(mask_id=MASK, vocab_size=1000, **options)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=60), st.booleans())
def test_labels_are_the_tokens_and_special_ones_are_never_masked(starts, whole) -> None:
    places = np.array([-1, 2, *starts, -1], np.int32)
    ids = np.arange(100, 100 + len(places), dtype=np.int32)
    read, labels = masking(whole_word_mask=whole).mask(ids, places, np.random.default_rng(0))
    trained = labels != -100
    assert (labels[trained] == ids[trained]).all()
    assert (read[~trained] == ids[~trained]).all()
    assert not trained[places < 0].any()
    wanted = num_predictions(len(ids), 0.15)
    assert 1 <= trained.sum() <= wanted
    if not whole:
        assert trained.sum() == min(wanted, len(starts) + 1)


def test_four_in_five_are_masked_and_a_tenth_each_is_random_or_kept() -> None:
    ids = np.full(100_000, 500, np.int32)
    starts = np.ones(len(ids), np.int32)
    read, labels = masking().mask(ids, starts, np.random.default_rng(0))
    chosen = read[labels != -100]
    assert len(chosen) == 15_000
    assert abs((chosen == MASK).mean() - 0.8) < 0.01
    assert abs((chosen == 500).mean() - 0.1) < 0.01
    assert len(np.unique(chosen)) > 700
    read, labels = masking(mask_replace_prob=0.0, random_replace_prob=0.0).mask(
        ids, starts, np.random.default_rng(0)
    )
    assert (read == ids).all()


def test_a_word_is_masked_whole_or_not_at_all() -> None:
    starts = np.array([-1, *[2, 0, 0], *[1, 0], 1, 1, *[1, 0, 0], 1, *[1] * 27, -1], np.int32)
    seen = set()
    for seed in range(50):
        chosen = masking(whole_word_mask=True).choose(starts, np.random.default_rng(seed))
        assert len(chosen) <= num_predictions(len(starts), 0.15)
        for word in ({1, 2, 3}, {4, 5}, {8, 9, 10}):
            assert word & set(chosen.tolist()) in (set(), word)
            seen |= {frozenset(word)} if word <= set(chosen.tolist()) else set()
    assert len(seen) == 3


def test_a_word_too_long_to_mask_whole_leaves_something_to_predict() -> None:
    starts = np.array([-1, 1, 0, 0, 0, 0, -1], np.int32)
    assert len(masking(whole_word_mask=True).choose(starts, np.random.default_rng(0))) == 1


def test_predictions_are_a_rounded_share_and_one_at_least() -> None:
    assert [num_predictions(n, 0.15) for n in (1, 4, 10, 128, 512)] == [1, 1, 2, 19, 77]
