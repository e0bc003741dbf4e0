"""Examples of answers say what they ask, and by which answer they are scored."""

from __future__ import annotations

from preference_fixture import examples


def test_a_pair_and_its_verdicts_ask_the_same() -> None:
    pairs, verdicts = examples(), examples(judged=True)
    for pair, good, bad in zip(pairs, verdicts[::2], verdicts[1::2], strict=True):
        assert pair.asked == good.asked == bad.asked
        assert pair.prompt == good.prompt == pair.question().messages
        assert pair.reference == good.reference == good.answer != bad.reference
        assert pair.texts == (*good.texts, bad.texts[-1])
        assert pair.sample() == good.sample()
        assert (good.is_good, bad.is_good) == (True, False)
