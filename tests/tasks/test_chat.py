"""Conversations are taken as they are, or refused with the reason."""

from __future__ import annotations

import pytest

from peftkit.errors import DataError
from peftkit.tasks.chat import Chat, ChatConfig


def say(*pairs: tuple[str, str]) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_several_turns_are_kept():
    row = say(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    example = Chat(ChatConfig()).example(row)
    assert [message["role"] for message in example.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert example.reference == "d"


def test_sharegpt_words_are_translated():
    config = ChatConfig("conversations", "from", "value", {"human": "user", "gpt": "assistant"})
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    assert Chat(config).columns == ("conversations",)
    assert Chat(config).example(row).messages == (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": None}, "messages is null, not a list of messages"),
        ({"messages": []}, "messages is empty, not a list of messages"),
        ({"messages": "hi"}, "messages is text, not a list of messages"),
        ({"messages": ["hi"]}, "messages holds text where a message should be"),
        ({"messages": [{"content": "a"}]}, "messages has a message without 'role'"),
        (
            say(("expert", "a")),
            "messages has the role 'expert'; known are system, developer, user, assistant, tool",
        ),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages has a message of user whose content is no text but null",
        ),
        (say(("user", " "), ("assistant", "b")), "messages has an empty message of user"),
        (say(("user", "a")), "messages has no assistant's turn"),
        (
            say(("user", "a"), ("assistant", "b"), ("system", "s")),
            "messages has a system message after the first",
        ),
        (
            say(("user", "a"), ("user", "b"), ("assistant", "c")),
            "messages does not alternate between user and assistant",
        ),
        (
            say(("assistant", "a"), ("user", "b"), ("assistant", "c")),
            "messages does not alternate between user and assistant",
        ),
        (
            say(("user", "a"), ("assistant", "b"), ("user", "c")),
            "messages ends with a user's turn",
        ),
    ],
)
def test_a_conversation_that_cannot_be_trained_says_why(row, problem):
    with pytest.raises(DataError) as caught:
        Chat(ChatConfig()).example(row)
    assert caught.value.message == problem


def test_the_last_answer_is_scored():
    task = Chat(ChatConfig())
    assert list(task.score(["a"], ["a"])) == ["rougeL", "bleu", "chrf"]
    assert task.headline == "rougeL"
    assert task.baselines([]) == {}
