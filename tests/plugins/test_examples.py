"""Each kind of example says what it is scored against."""

from __future__ import annotations

from peftkit import plugins
from peftkit.plugins.examples import Conversation, Example, Labeled, Text


def test_a_plugin_s_author_finds_every_kind_in_one_place() -> None:
    assert plugins.Conversation is Conversation
    assert plugins.Text is Text
    assert plugins.Labeled is Labeled
    assert isinstance(Labeled(("a",), "b"), Example)


def test_the_last_answer_and_the_label_are_references() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat = Conversation(tuple(turns))
    assert chat.prompt == (turns[0],)
    assert chat.reference == "b"
    assert Labeled(("a", "c"), "b").reference == "b"
