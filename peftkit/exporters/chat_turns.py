"""A chat template as a table: which text stands between two messages, learnt by rendering it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftkit.errors import ArtefactError
from peftkit.system.templates import RefusedByTemplateError, render_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START, END = "start", "end"
Message = Mapping[str, str]
_TAUGHT = ("u", "su", "uau", "suau")
"""Conversations that the table is learnt from, by the first letters of their roles."""
_OPTIONAL = ("au", "sau", "us", "s")
"""Conversations that some templates refuse, and that need not follow the table."""
_HELD_OUT = ("u", "su", "uau", "suau", "uauau", "suauau", "uauauau", "suauauau")
_ROLES = {"s": "system", "u": "user", "a": "assistant"}
_CONTENTS = (
    "plain words",
    'a "quoted" {{ brace }} {% tag %} <b>&amp;</b> back\\slash',
    "two lines\n\n  and an indented one",
    "naïve café 東京 🙂",
    "it's 100% done; # no comment",
    '"""three quotes""" and a trailing colon:',
)


@dataclass(frozen=True)
class Turns:
    """Hold the text between neighbouring messages, by their roles."""

    gaps: Mapping[tuple[str, str], str]
    """(role before or `start`, role after or `end`) -> text; `end` holds the prompt to answer."""
    trims: bool = False
    """Whether the template strips white space around a message, which the table does not."""
    thinks: bool = False
    """Whether it drops an assistant's `<think>` part, which the table does not."""

    @property
    def takes_system(self) -> bool:
        """Tell whether a conversation may begin with a system message."""
        return (START, "system") in self.gaps

    def render(self, messages: Sequence[Message]) -> str:
        """Render a conversation up to where the model answers."""
        before, parts = START, []
        for message in messages:
            if message["role"] == "system" and not self.takes_system:
                continue
            parts += [self.gaps.get((before, message["role"]), ""), message["content"]]
            before = message["role"]
        return "".join([*parts, self.gaps.get((before, END), "")])


def learn_turns(tokenizer: PreTrainedTokenizerBase) -> Turns:
    """Learn a chat template's table, and hold it against conversations it was not learnt from.

    Raises:
        ArtefactError: what stands between two messages depends on more than their roles.
    """
    source = tokenizer.chat_template
    if not isinstance(source, str):
        raise _refusal(tokenizer, "it is several templates under one name")
    if "strftime_now" in source:
        raise _refusal(tokenizer, "it writes today's date")
    gaps: dict[tuple[str, str], str] = {}
    for letters in _TAUGHT:
        found = _gaps(tokenizer, letters)
        if found is None:
            if "s" in letters:
                continue
            raise _refusal(tokenizer, f"it refuses a conversation of {_spell(letters)}")
        _add(gaps, found, tokenizer, letters)
    for letters in _OPTIONAL:
        found = _gaps(tokenizer, letters) or {}
        if all(gaps.get(pair, text) == text for pair, text in found.items()):
            gaps.update(found)
    turns = Turns(gaps, _trims(tokenizer), _thinks(tokenizer))
    for messages in held_out(turns):
        rendered = render(tokenizer, messages)
        if rendered != turns.render(messages):
            letters = "".join(message["role"][0] for message in messages)
            raise _refusal(
                tokenizer,
                f"in a conversation of {_spell(letters)} it changes what is said, or depends on"
                " more than the roles of neighbouring messages",
            )
    return turns


def held_out(turns: Turns) -> Iterator[list[Message]]:
    """Give conversations of up to eight messages, with contents that are easily broken."""
    contents = itertools.cycle(_CONTENTS)
    for letters in _HELD_OUT:
        if turns.takes_system or "s" not in letters:
            # A cycle of six contents meets other roles in every conversation.
            yield [{"role": _ROLES[letter], "content": next(contents)} for letter in letters]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str | None:
    """Render a conversation by the chat template itself; None where it refuses it."""
    plain = [dict(message) for message in messages]
    try:
        text: str = render_template(tokenizer, plain, tokenize=False, add_generation_prompt=True)
    except RefusedByTemplateError:
        return None
    return text


def _gaps(tokenizer: PreTrainedTokenizerBase, letters: str) -> dict[tuple[str, str], str] | None:
    """Render markers and cut at them; None where the template refuses the conversation."""
    marks = [f"Qx{index}zQ" for index in range(len(letters))]
    roles = [_ROLES[letter] for letter in letters]
    rendered = render(
        tokenizer,
        [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)],
    )
    if rendered is None:
        return None
    found: dict[tuple[str, str], str] = {}
    rest = rendered
    for before, role, mark in zip([START, *roles], roles, marks, strict=False):
        text, mid, rest = rest.partition(mark)
        if not mid:
            raise _refusal(
                tokenizer, f"in a conversation of {_spell(letters)} it drops or reorders messages"
            )
        _add(found, {(before, role): text}, tokenizer, letters)
    if any(mark in rest for mark in marks):
        raise _refusal(tokenizer, f"in a conversation of {_spell(letters)} it repeats a message")
    _add(found, {(roles[-1], END): rest}, tokenizer, letters)
    return found


def _add(
    gaps: dict[tuple[str, str], str],
    found: Mapping[tuple[str, str], str],
    tokenizer: PreTrainedTokenizerBase,
    letters: str,
) -> None:
    for pair, text in found.items():
        if gaps.setdefault(pair, text) != text:
            raise _refusal(
                tokenizer,
                f"between {pair[0]} and {pair[1]} it writes {gaps[pair]!r} once and {text!r} in a"
                f" conversation of {_spell(letters)}",
            )


def _trims(tokenizer: PreTrainedTokenizerBase) -> bool:
    return "  Qx " not in (render(tokenizer, [{"role": "user", "content": "  Qx "}]) or "  Qx ")


def _thinks(tokenizer: PreTrainedTokenizerBase) -> bool:
    thought = "<think>\nQxQ\n</think>\n\nanswer"
    contents = (("user", "one"), ("assistant", thought), ("user", "two"))
    messages = [{"role": role, "content": content} for role, content in contents]
    return thought not in (render(tokenizer, messages) or thought)


def _spell(letters: str) -> str:
    return ", ".join(_ROLES[letter] for letter in letters)


def _refusal(tokenizer: PreTrainedTokenizerBase, what: str) -> ArtefactError:
    return ArtefactError(
        f"{tokenizer.name_or_path}: its chat template cannot be said in Ollama's language: {what}",
        hint="--to gguf carries the template as it is, for llama.cpp's server",
    )
