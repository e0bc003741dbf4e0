"""Where each trained turn stands in a rendered conversation: from its prompt's end to its own.

It is seen by rendering once more with a character of no meaning at the turn's end, which nobody
reads but the search. An answer begins where generation would, another's turn with what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.errors import DataError
from peftkit.plugins.examples import Message
from peftkit.preprocessing.chat_template import (
    GENERATION,
    MARKS,
    REASONING,
    WAY_OUT,
    ChatTemplate,
    no_end,
)
from peftkit.system.templates import template_bounds

_SENTINELS = 0x100000


@dataclass(frozen=True)
class Turn:
    """Hold where one trained turn stands in a rendered conversation."""

    at: int
    """Place of its message."""
    prompt: str
    """All of the text before it; of an answer what generation is given."""
    stop: int
    """Where the text goes on after the token that ends it."""


@dataclass(frozen=True)
class Rendered:
    """Hold a conversation as text, with marks around control tokens that are only said."""

    text: str
    turns: tuple[Turn, ...]
    """Those that are trained."""


def lay_out(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    turns: Sequence[int],
) -> Rendered:
    """Render a conversation, and find the answers that are trained.

    Raises:
        DataError: the template refuses it, or an answer's prompt is no part of it.
        TemplateError: the template ends no turn.
    """
    template.check_fields(messages, tools)
    said, offered = template.said(messages, tools)
    text = template.render(said, offered)
    if MARKS[0] in text and without_marks(text) != template.render(messages, tools):
        raise DataError(
            "the chat template reads a control token in what is said",
            hint="data.dialogue.control_tokens=keep takes it for structure",
        )
    for at in turns if template.rendering.control_tokens == "keep" else ():
        template.check_single_end(said[at]["content"], at)
    _check_marks(template, said, offered, text, turns)
    found = []
    for at, start, stop in _spans(template, said, offered, text, turns):
        if said[at]["role"] == "assistant":
            prompt = template.render(said[:at], offered, is_prompt=True)
            if not text.startswith(prompt):
                raise _rewritten(at)
        else:
            prompt = text[: _before_space(text, start, said[at]["content"])]
        if stop <= len(prompt):
            raise no_end(at)
        found.append(Turn(at, prompt, stop))
    return Rendered(text, tuple(found))


def _spans(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    text: str,
    turns: Sequence[int],
) -> Iterator[tuple[int, int, int]]:
    """Find each trained turn: its place, where it says something, and the end of what ends it.

    What ends it stands after what was planted at its end, and before what follows it.
    """
    base = _SENTINELS
    while any(chr(base + n) in text for n in range(len(messages))):
        base += len(messages)
    sentinels = range(base, base + len(messages))
    shown = template.render(_planted(messages, turns, base), tools)
    if shown.translate(dict.fromkeys(sentinels)) != text:
        raise DataError(
            "the chat template changes what it writes with what is said, so that where an"
            " answer ends is unknown",
            hint=WAY_OUT,
        )
    places = _places(shown, sentinels)
    if turns:
        _check_shown(messages[turns[-1]], turns[-1], len(places.get(turns[-1], ())))
    matches = template.end_places(text)
    for at in turns:
        calls = bool(messages[at].get("tool_calls"))
        said = places.get(at, [0])
        start = 0 if calls else said[-1]
        bound = places.get(at + 1, [len(text)])[0]
        if messages[at]["role"] != "assistant" and _speaks_next(messages, at):
            bound = len(template.render(messages[: at + 1], tools, is_prompt=True))
        inside = [match for match in matches if start <= match.start() < bound]
        plain = [match for match in inside if match.group() in template.ends]
        if not inside or not (calls or plain):
            raise no_end(at)
        # A call's turn may hold several parts, each with an end: its last is the turn's.
        yield at, said[0], inside[-1].end() if calls else plain[0].end()


def _before_space(text: str, start: int, content: str) -> int:
    """Go back over the white space that a text begins with, where the template keeps it."""
    space = content[: len(content) - len(content.lstrip())]
    return start - len(space) if text[:start].endswith(space) else start


def _speaks_next(messages: Sequence[Message], at: int) -> bool:
    """Tell whether the assistant speaks after a message."""
    return at + 1 < len(messages) and messages[at + 1]["role"] == "assistant"


def _planted(messages: Sequence[Message], turns: Sequence[int], base: int) -> list[Message]:
    """Mark the ends of trained turns; the beginnings of what is no answer and trained, or next."""
    trained = set(turns)
    planted: list[Message] = []
    for at, own in enumerate(messages):
        sentinel, told = chr(base + at), dict(own)
        if own["role"] != "assistant" and trained & {at - 1, at}:
            told["content"] = _opened(told["content"], sentinel)
        if at in trained:
            keys = [key for key in ("content", *REASONING) if key in told]
            told.update({key: _closed(told[key], sentinel) for key in keys})
        planted.append(told)
    return planted


def _check_marks(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    text: str,
    turns: Sequence[int],
) -> None:
    """Refuse a row of which the template's own marks leave a trained answer out."""
    if not GENERATION.search(template.source) or template.rendering.train == "everything":
        return
    from transformers.utils.chat_template_utils import render_jinja_template

    told = [{k: v for k, v in one.items() if v is not None} for one in template._told(messages)]
    with template_bounds(str(template.tokenizer.name_or_path)):
        _, (spans,) = render_jinja_template(
            [told],
            tools=[dict(tool) for tool in tools] or None,
            chat_template=template._with_tools if tools else template.source,
            return_assistant_tokens_mask=True,
            **{**template.tokenizer.special_tokens_map, **template.rendering.chat_template_kwargs},
        )
    num_marked = sum(bool(text[start:stop].strip()) for start, stop in spans)
    num_turns = sum(message["role"] == "assistant" for message in messages)
    num_trained = sum(messages[at]["role"] == "assistant" for at in turns)
    if num_marked < num_trained:
        raise DataError(
            f"the chat template marks {num_marked} of {num_turns} assistant turns as generated",
            hint="data.dialogue.train=last_answer, or another `model.chat_template: NAME`",
        )


def without_marks(text: str) -> str:
    """Return a rendered text as it is read."""
    return text.replace(MARKS[0], "").replace(MARKS[1], "")


def _check_shown(message: Message, at: int, num_shown: int) -> None:
    """Refuse an answer of which the template leaves something out."""
    keys = [key for key in ("content", *REASONING) if str(message.get(key) or "").strip()]
    if num_shown < len(keys) and not message.get("tool_calls"):
        raise DataError(
            f"message {at} has {keys[-1]!r}, which the chat template leaves out there",
            hint=f"remove it, data.task.chat.ignore=[{keys[-1]}], or {WAY_OUT}",
        )


def _opened(text: str, sentinel: str) -> str:
    """Put a character before a text, behind white space that may be stripped."""
    body = text.lstrip()
    return text[: len(text) - len(body)] + sentinel + body if body else text


def _closed(text: str, sentinel: str) -> str:
    """Put a character behind a text, before white space that may be stripped."""
    body = text.rstrip()
    return body + sentinel + text[len(body) :] if body else text


def _places(shown: str, sentinels: range) -> dict[int, list[int]]:
    """Find planted characters: message -> where they would stand in the text without them."""
    pattern = re.compile(f"[{chr(sentinels.start)}-{chr(sentinels.stop - 1)}]")
    found: dict[int, list[int]] = {}
    for number, match in enumerate(pattern.finditer(shown)):
        found.setdefault(ord(match.group()) - sentinels.start, []).append(match.start() - number)
    return found


def _rewritten(at: int) -> DataError:
    return DataError(
        f"the chat template renders the prompt of message {at} differently once the answer follows,"
        " so that the model would be asked something else than it was trained on",
        hint="data.dialogue.train=last_answer where earlier answers are rewritten,"
        " data.dialogue.chat_template_kwargs={enable_thinking: false} where thoughts are opened"
        " and the rows have none (reasoning_content), or another `model.chat_template: NAME`",
    )
