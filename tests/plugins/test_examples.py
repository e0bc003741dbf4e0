"""Each kind of example says what it is scored against."""

from __future__ import annotations

from peftkit import plugins
from peftkit.plugins.examples import Conversation, Example, Labeled, Question, Text


def test_a_plugin_s_author_finds_every_kind_in_one_place() -> None:
    assert plugins.Conversation is Conversation
    assert plugins.Text is Text
    assert plugins.Labeled is Labeled
    assert issubclass(Labeled, Example)


def test_the_last_answer_and_the_label_are_references() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat = Conversation(tuple(turns))
    assert chat.prompt == (turns[0],)
    assert chat.reference == "b"
    assert Labeled(("a", "c"), "b").reference == "b"


def test_an_example_says_what_the_house_asks_of_any() -> None:
    chat = Conversation(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}))
    assert (chat.texts, chat.asked, chat.answer) == (("a", "b"), [["user", "a"]], "b")
    assert (chat.class_label, chat.problem(), chat.sample()) == (None, "", {"prompt": "a"})
    text = Text("a")
    assert (text.texts, text.asked, text.prompt, text.sample()) == (("a",), "a", (), {})
    assert text.with_label("b") is text
    pair = Labeled(("a", "c"), "b")
    assert pair.sample() == {"prompt": "a\n\nc", "texts": ["a", "c"]}
    assert (pair.class_label, pair.with_label("d", 3)) == ("b", Labeled(("a", "c"), "d", 3))


def test_an_example_is_a_question_without_its_answer() -> None:
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    assert Conversation(turns).question() == Question(messages=turns[:1])
    assert Text("a").question() == Question(text="a")
    assert Labeled(("a", "c"), "b").question() == Question(texts=("a", "c"))


def test_an_example_says_what_a_task_made_wrongly() -> None:
    user = {"role": "user", "content": "a"}
    assert Conversation((user,)).problem() == "ends in a message that is not the assistant's"
    assert (
        Conversation((user, {"role": "assistant", "content": " "})).problem()
        == "has an empty answer"
    )
    assert Conversation(({"role": "assistant", "content": "a"},)).problem() == "answers nothing"
    assert Text(" ").problem() == "has no text"
    assert Labeled(("a",), "").problem() == "has no label"
