"""A column of text or of messages is read as messages, and what two share is their prompt."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.tasks.turns import read_turns, split_shared


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_text_is_one_message_as_it_stands() -> None:
    assert read_turns({"a": "  x\n"}, "a", role="user") == (turn("user", "  x\n"),)


def test_messages_are_read_as_those_of_conversations_are() -> None:
    said = (turn("user", "a"), turn("assistant", "b"))
    assert read_turns({"a": list(said)}, "a", role="assistant") == said
    value = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert read_turns({"a": value}, "a", role="assistant") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "a is null"),
        ("", "a is empty"),
        (3, "a is not text but a number"),
        (["x"], "a holds text where a message should be"),
        ([turn("user", "x")], "a ends with a message of user, not of assistant"),
        ([turn("judge", "x")], "a has the role 'judge'"),
        ([turn("assistant", " ")], "a has an empty message"),
    ],
)
def test_what_is_not_said_is_refused(value: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_turns({"a": value}, "a", role="assistant")


def test_shared_turns_are_the_prompt() -> None:
    prompt = (turn("system", "s"), turn("user", "q"))
    one, other = ((*prompt, turn("assistant", answer)) for answer in ("a", "b"))
    assert split_shared(one, other) == (prompt, ((one[-1],), (other[-1],)))


def test_shared_words_are_the_prompt() -> None:
    one = (turn("assistant", "Say a colour: blue"),)
    other = (turn("assistant", "Say a colour: black and white"),)
    prompt, (first, second) = split_shared(one, other)
    assert prompt == (turn("user", "Say a colour:"),)
    assert first[0]["content"] == "blue" and second[0]["content"] == "black and white"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("a b", "a b", "the same"),
        ("a ", "a b", "one is how the other begins"),
        ("a", "b", "share no prompt"),
    ],
)
def test_nothing_shared_or_nothing_left_is_refused(one: str, other: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        split_shared((turn("assistant", one),), (turn("assistant", other),))
