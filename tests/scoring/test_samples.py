"""A sample shows what was asked, wanted and answered, whatever kind of example it is."""

from __future__ import annotations

from peftkit.plugins import Contestant, Conversation, Labeled, Text
from peftkit.scoring.samples import make_samples

USER = {"role": "user", "content": "sort"}
SYSTEM = {"role": "system", "content": "be short"}
ANSWER = {"role": "assistant", "content": "keys"}


def one(text: str, **options) -> Contestant:
    return Contestant({}, (text,), 0, **options)


def test_a_plain_question_is_text_and_others_are_messages() -> None:
    contestants = {"base": one("a"), "tuned": one("b")}
    scores = {"base": [0.0], "tuned": [1.0]}
    (plain,) = make_samples([Conversation((USER, ANSWER))], contestants, scores)
    assert plain == {
        "prompt": "sort", "reference": "keys", "base": "a", "tuned": "b",
        "scores": {"base": 0.0, "tuned": 1.0},
    }  # fmt: skip
    (chat,) = make_samples([Conversation((SYSTEM, USER, ANSWER))], contestants, scores)
    assert chat["prompt"] == [SYSTEM, USER]


def test_a_label_has_its_probability_and_a_pair_its_texts() -> None:
    contestants = {"tuned": one("yes", probabilities=(0.75,))}
    (pair,) = make_samples([Labeled(("a", "b"), "no")], contestants, {"tuned": [0.0]})
    assert pair == {
        "prompt": "a\n\nb", "texts": ["a", "b"], "reference": "no", "tuned": "yes",
        "probability": 0.75, "scores": {"tuned": 0.0},
    }  # fmt: skip
    (alone,) = make_samples([Labeled(("a",), "no")], contestants, {"tuned": [0.0]})
    assert "texts" not in alone


def test_what_is_not_answered_has_no_samples() -> None:
    assert make_samples([Text("a")], {"tuned": Contestant({})}, {"tuned": []}) == ()
    # Nor has what is asked and never answered: a preference, say.
    asked = Conversation((USER, ANSWER))
    assert make_samples([asked], {"tuned": Contestant({})}, {"tuned": [1.0]}) == ()
