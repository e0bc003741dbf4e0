"""Read a conversation out of a row: OpenAI's words and ShareGPT's, lists or JSON text of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftkit.errors import DataError, EmptyValueError
from peftkit.sources.columns import describe_kind

ROLES = ("system", "developer", "user", "assistant", "tool")
OTHER_ROLES: Mapping[str, str] = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
"""ShareGPT's words, and others that mean nothing else -> ours."""
_SHAREGPT = {"role": "from", "content": "value"}
_ROLE_HINT = "say what each word means: data.task.chat.roles={expert: assistant}"
_WEIGHT_HINT = "1 trains an answer and 0 does not; other weights would need a loss of their own"


@dataclass(frozen=True)
class Words:
    """Say what a file calls who speaks and what."""

    role: str = "role"
    content: str = "content"
    roles: Mapping[str, str] = field(default_factory=dict)
    ignore: Sequence[str] = ()
    """Keys of a message that are left out."""


def read_messages(value: Any, column: str, words: Words = Words()) -> tuple[dict[str, Any], ...]:
    """Return a column's messages: roles in our words, content as text, other keys as they are.

    Raises:
        DataError: no list of messages, an unknown role, or content that is no text.
    """
    value = parsed(value)
    if not isinstance(value, list | tuple) or not value:
        kind = "empty" if isinstance(value, list | tuple) else describe_kind(value)
        raise DataError(
            f"{column} is {kind}, not a list of messages",
            hint="name the column that holds them: data.task.chat.messages=COLUMN",
        )
    return tuple(_message(item, column, words) for item in value)


def read_tools(value: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """Return a column's tools, a list of JSON schemas or JSON text of one; none where it is null.

    Raises:
        DataError: it is something else.
    """
    value = parsed(value)
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple):
        raise DataError(f"{column} is {describe_kind(value)}, not a list of tools",
                        hint="a list of JSON schemas, or JSON text of one")  # fmt: skip
    tools = [parsed(tool) for tool in value]
    for tool in tools:
        if not isinstance(tool, Mapping):
            raise DataError(f"{column} holds {describe_kind(tool)} where a tool should be",
                            hint="a list of JSON schemas, or JSON text of one")  # fmt: skip
    return tuple(_without_nulls(tool) for tool in tools)


def _message(item: object, column: str, words: Words) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise DataError(f"{column} holds {describe_kind(item)} where a message should be")
    role_key, content_key = _keys(item, words)
    said = item.get(role_key)
    if not isinstance(said, str):
        raise DataError(
            f"{column} has a message without {role_key!r}",
            hint="name the keys: data.task.chat.role=KEY data.task.chat.content=KEY",
        )
    role = words.roles.get(said, OTHER_ROLES.get(said, said))
    if role not in ROLES:
        raise DataError(
            f"{column} has the role {said!r}; known are {', '.join(ROLES)}", hint=_ROLE_HINT
        )
    left_out = {role_key, content_key, *words.ignore}
    further = {
        key: _without_nulls(value)
        for key, value in item.items()
        if key not in left_out and value is not None and value != []
    }
    if further.get("weight", 1) not in (0, 1):
        raise DataError(
            f"{column} has a message of {role} with weight {further['weight']}", hint=_WEIGHT_HINT
        )
    text = _text(item.get(content_key), column, role, content_key)
    if said == "function_call":
        text, further["tool_calls"] = "", text
    if "tool_calls" in further:
        further["tool_calls"] = _calls(further["tool_calls"], column)
    if not text.strip() and not (further.keys() - {"weight"} or role == "tool"):
        raise EmptyValueError(
            f"{column} has an empty message of {role}", hint="mend or remove those rows"
        )
    return {"role": role, "content": text, **further}


def _keys(item: Mapping[str, Any], words: Words) -> tuple[str, str]:
    """Return the keys of who speaks and what; ShareGPT's where a message has only them."""
    found = {"role": words.role, "content": words.content}
    for key, other in _SHAREGPT.items():
        if found[key] == key and item.get(key) is None and item.get(other) is not None:
            found[key] = other
    return found["role"], found["content"]


def _text(value: Any, column: str, role: str, key: str) -> str:
    """Return content as text: null beside a call is none, a list of text parts is their text."""
    if value is None and role == "assistant":
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{column} has a message of {role} whose {key} is no text but {describe_kind(value)}",
            hint="content is text, or a list of parts {type: text, text: ...}",
        )
    parts = []
    for part in value:
        text = part.get("text") if isinstance(part, Mapping) else part
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text" or not isinstance(text, str):
            raise DataError(
                f"{column} has a message of {role} with a part of type {kind!r}, which is no text",
                hint="remove those parts; images need a method with a processor (see peftkit"
                " plugins)",
            )
        parts.append(text)
    return "".join(parts)


def _calls(value: Any, column: str) -> list[dict[str, Any]]:
    """Return calls of functions as templates take them: arguments as objects, not as JSON text."""
    value = parsed(value)
    if isinstance(value, Mapping):
        value = [value]
    calls = []
    for call in value if isinstance(value, list | tuple) else [value]:
        given = parsed(call)
        function = given.get("function", given) if isinstance(given, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise DataError(
                f"{column} has a call of a function without a name",
                hint='tool_calls: [{"function": {"name": "add", "arguments": {"x": 1}}}]',
            )
        arguments = parsed(function.get("arguments", {}))
        plain = {**function, "arguments": _without_nulls(arguments)}
        outer = given if "function" in given else {}
        calls.append({"type": "function", **outer, "function": plain})
    return calls


def parsed(value: Any) -> Any:
    """Read JSON text of a list or an object; anything else is left as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _without_nulls(value: Any) -> Any:
    """Drop keys that are null: a table gives every object the keys that any has."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(inner) for inner in value]
    return value
