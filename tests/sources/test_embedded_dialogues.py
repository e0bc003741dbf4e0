"""Questions about a documented name are answered by its signature and its dotted name."""

from __future__ import annotations

import pytest

from peftkit.sources.embedded import EmbeddedConfig, EmbeddedSource
from peftkit.sources.embedded_dialogues import as_dialogues, parameters


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        ("a.f(x, *, y: dict[str, int]={}, **more)", ["x", "y", "more"]),
        ("a.C.m(self, p: Callable[[int, str], None]=(1, 2))", ["p"]),
        ("a.f()", []),
        ("a.constant", []),
    ],
)
def test_parameters_are_those_of_the_signature(signature, names):
    assert parameters(f"{signature}\n\nIt calls (b, c).") == names


def test_a_dialogue_asks_three_things():
    row = {"document": "a.b.C.m(x)\n\nText.", "summary": "It does.", "name": "a.b.C.m"}
    (made,) = as_dialogues([row])
    said = [message["content"] for message in made["messages"]]
    assert said[:2] == ["Summarize the text.\n\na.b.C.m(x)\n\nText.", "It does."]
    assert sorted(said[3::2]) == ["a.b", "x"]


def test_the_sample_gives_dialogues():
    rows = EmbeddedSource(EmbeddedConfig("docstring-summaries", dialogue=True)).load("test")
    lasts = {messages[-2]["content"] for messages in rows["messages"]}
    assert lasts == {"Which parameters does it take?", "Which module is it in?"}
