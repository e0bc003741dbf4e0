"""Read what a row says as chat messages: a text, or a list of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins.examples import Message
from peftkit.sources.columns import read_text
from peftkit.sources.messages import read_messages

Turns = tuple[Message, ...]


def read_turns(row: Mapping[str, Any], column: str, *, role: str) -> Turns:
    """Return the messages of a column; a text is one message.

    Args:
        role: who says a text, and who speaks last in a list of messages.

    Raises:
        DataError: the value is null, empty, neither text nor messages, or ends with another's turn.
    """
    value = row.get(column)
    if not isinstance(value, list | tuple):
        return ({"role": role, "content": read_text(row, column)},)
    turns = read_messages(value, column)
    if not all(str(turn["content"]).strip() for turn in turns):
        raise EmptyValueError(f"{column} has an empty message")
    last = turns[-1]["role"]
    if last != role:
        raise DataError(f"{column} ends with a message of {last}, not of {role}")
    return turns


def split_shared(
    one: Sequence[Message], other: Sequence[Message]
) -> tuple[Turns, tuple[Turns, Turns]]:
    """Part two conversations into the turns that they begin with in common, and the rest of each.

    Two texts share the words that they begin with, which are the prompt then.

    Raises:
        DataError: they share nothing, or one is the other's beginning.
    """
    if len(one) == len(other) == 1:
        return _split_texts(one[0]["content"], other[0]["content"])
    pairs = enumerate(zip(one, other, strict=False))
    shortest = min(len(one), len(other))
    num = next((at for at, (ours, theirs) in pairs if ours != theirs), shortest)
    prompt, rests = tuple(one[:num]), (tuple(one[num:]), tuple(other[num:]))
    _check(bool(prompt) and prompt[-1]["role"] == "user", all(rests))
    return prompt, rests


def _split_texts(one: str, other: str) -> tuple[Turns, tuple[Turns, Turns]]:
    num = next(
        (at for at, (ours, theirs) in enumerate(zip(one, other, strict=False)) if ours != theirs),
        min(len(one), len(other)),
    )
    # A word that both answers begin alike is no part of the prompt.
    while 0 < num < max(len(one), len(other)) and not one[num - 1].isspace():
        num -= 1
    prompt, rests = one[:num].strip(), (one[num:].strip(), other[num:].strip())
    _check(bool(prompt), all(rests))
    answers = [({"role": "assistant", "content": rest},) for rest in rests]
    return ({"role": "user", "content": prompt},), (answers[0], answers[1])


def _check(has_prompt: bool, has_answers: bool) -> None:
    if not has_answers:
        raise DataError("chosen and rejected are the same, or one is how the other begins")
    if not has_prompt:
        raise DataError("chosen and rejected share no prompt that they begin with")
