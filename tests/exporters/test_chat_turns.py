"""A chat template becomes a table of turns, or is refused with what it does."""

from __future__ import annotations

from pathlib import Path

import chat_templates
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftkit.errors import ArtefactError
from peftkit.exporters.chat_turns import learn_turns, render


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    return tiny.tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def learnt(tokenizer) -> dict:
    """Name of a template -> its table."""
    found = {}
    for name, template in chat_templates.TRANSLATABLE.items():
        tokenizer.chat_template = template
        found[name] = learn_turns(tokenizer)
    return found


def test_a_table_holds_what_stands_between_roles(tokenizer) -> None:
    tokenizer.chat_template = chat_templates.SYSTEM_IN_FIRST_USER
    turns = learn_turns(tokenizer)
    assert turns.takes_system
    assert turns.gaps["start", "system"] == "<s>[INST] <<SYS>>\n"
    assert turns.gaps["system", "user"] == "\n<</SYS>>\n\n"
    assert turns.gaps["assistant", "user"] == " </s><s>[INST] "
    assert turns.gaps["user", "end"] == " [/INST]"


@pytest.mark.parametrize(
    ("name", "trims", "thinks", "takes_system"),
    [
        ("chatml", False, False, True),
        ("headers", True, False, True),
        ("no system", True, False, False),
        ("forgets thoughts", False, True, True),
    ],
)
def test_what_the_table_cannot_do_is_known(
    name: str, trims: bool, thinks: bool, takes_system: bool, tokenizer
) -> None:
    tokenizer.chat_template = chat_templates.TRANSLATABLE[name]
    turns = learn_turns(tokenizer)
    assert (turns.trims, turns.thinks, turns.takes_system) == (trims, thinks, takes_system)


@pytest.mark.parametrize("name", list(chat_templates.TRANSLATABLE))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1).map(str.strip),
        min_size=1,
        max_size=7,
    ),
    system=st.none() | st.just("Be brief."),
)
def test_any_conversation_is_rendered_alike(
    name: str, contents: list[str], system: str | None, tokenizer, learnt: dict
) -> None:
    turns = learnt[name]
    tokenizer.chat_template = chat_templates.TRANSLATABLE[name]
    roles = ["user", "assistant"] * 4
    messages = [{"role": role, "content": c} for role, c in zip(roles, contents, strict=False)]
    messages = messages if messages[-1]["role"] == "user" else messages[:-1]
    if system and turns.takes_system:
        messages = [{"role": "system", "content": system}, *messages]
    if turns.thinks and any("</think>" in m["content"] for m in messages):
        return
    assert turns.render(messages) == render(tokenizer, messages)


@pytest.mark.parametrize("name", list(chat_templates.REFUSED))
def test_what_depends_on_more_than_roles_is_refused(name: str, tokenizer) -> None:
    template, complaint = chat_templates.REFUSED[name]
    tokenizer.chat_template = template
    with pytest.raises(ArtefactError, match=complaint) as caught:
        learn_turns(tokenizer)
    assert "--to gguf" in str(caught.value.hint)


def test_several_templates_under_one_name_are_refused(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(tmp_path)
    tokenizer.chat_template = {"default": chat_templates.CHATML, "tool_use": "x"}
    with pytest.raises(ArtefactError, match="several templates"):
        learn_turns(tokenizer)
