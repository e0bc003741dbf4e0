"""Conversations are read in the words of several formats, or refused by name."""

from __future__ import annotations

import json

import pytest
from dialogue_fixture import CALL, TOOL

from peftkit.errors import DataError
from peftkit.sources.messages import Words, read_messages, read_tools


def test_json_of_tools_and_calls_is_understood():
    from peftkit.tasks.chat import Chat, ChatConfig

    called = json.dumps({"name": "add", "arguments": json.dumps({"x": 1})})
    row = {
        "conversations": json.dumps([
            {"from": "human", "value": "a"}, {"from": "function_call", "value": called},
            {"from": "observation", "value": "2"}, {"from": "gpt", "value": "b"},
        ]),
        "tools": json.dumps([TOOL]),
    }  # fmt: skip
    example = Chat(ChatConfig(messages="conversations")).example(row)
    assert example.tools == (TOOL,)
    assert example.messages[1]["tool_calls"] == [CALL]
    assert [message["role"] for message in example.messages] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"role": "assistant", "content": "a", "weight": 0.5}, "m has a message of assistant with"),
        ({"role": "user", "content": [{"type": "image"}]}, "a part of type 'image', which is no"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "a call of a function without a name"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(message, problem):
    with pytest.raises(DataError, match=problem):
        read_messages([message], "m")


def test_parts_of_text_are_text_and_keys_are_carried_or_left_out():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    message = {"role": "user", "content": parts, "name": "x", "at": 3, "tool_calls": None}
    assert read_messages([message], "m", Words(ignore=["at"])) == (
        {"role": "user", "content": "a b", "name": "x"},
    )
    assert read_tools(None, "tools") == ()
    with pytest.raises(DataError, match="tools holds a number where a tool should be"):
        read_tools([3], "tools")
