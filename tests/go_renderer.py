"""A renderer of the part of Go's text/template that Modelfiles need, written from its manual.

Source: the documentation of Go's text/template. Actions between `{{` and `}}`, `-` beside a
delimiter eats white space, `range`, `if`, `else if`, `else`, `end`, variables, fields, `eq`, `ne`,
`and`, `or`, `not`, interpreted string literals.
"""

from __future__ import annotations

import re

_ACTION = re.compile(
    r"\{\{(-(?=\s))?\s*((?:\"(?:[^\"\\]|\\.)*\"|[^\"])*?)\s*(?:(?<=\s)(-))?\}\}", re.S
)
_WORD = re.compile(r'\s*("(?:[^"\\\n]|\\.)*"|\(|\)|:=|=|[$.]?[\w.$]+|\.)')
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


def render(template: str, data: dict) -> str:
    """Execute a template."""
    nodes, rest = _parse(_lex(template), top=True)
    assert not rest
    out: list[str] = []
    _run(nodes, data, [{"$": data}], out)
    return "".join(out)


def ollama(template: str, messages: list[dict[str, str]]) -> str:
    """Execute a template on a conversation as Ollama does."""
    values = [{"Role": m["role"], "Content": m["content"]} for m in messages]
    return render(template, {"Messages": values})


def _lex(template: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    place, eats = 0, False
    for match in _ACTION.finditer(template):
        text = template[place : match.start()]
        text = text.lstrip(" \t\r\n") if eats else text
        found.append(("text", text.rstrip(" \t\r\n") if match[1] else text))
        found.append(("action", match[2]))
        place, eats = match.end(), bool(match[3])
    text = template[place:]
    found.append(("text", text.lstrip(" \t\r\n") if eats else text))
    assert all(kind == "action" or "{{" not in text for kind, text in found), "unread action"
    return found


def _words(action: str) -> list[str]:
    found, place = [], 0
    while place < len(action):
        match = _WORD.match(action, place)
        assert match, f"cannot read {action[place:]!r}"
        found.append(match[1])
        place = match.end()
    return found


def _parse(tokens: list, *, top: bool = False) -> tuple[list, list]:
    nodes: list = []
    while tokens:
        kind, text = tokens.pop(0)
        words = [] if kind == "text" else _words(text)
        if kind == "text":
            nodes.append(("text", text))
        elif words[0] in ("end", "else"):
            assert not top, f"{words[0]} without a beginning"
            return nodes, words
        elif words[0] in ("if", "range"):
            nodes.append(_block(words, tokens))
        else:
            nodes.append(("do", words))
    assert top, "a block without an end"
    return nodes, []


def _block(words: list[str], tokens: list) -> tuple:
    body, closing = _parse(tokens)
    other: list = []
    if closing[:2] == ["else", "if"]:
        other = [_block(closing[1:], tokens)]
    elif closing == ["else"]:
        other, closing = _parse(tokens)
        assert closing == ["end"]
    return (words[0], words[1:], body, other)


def _run(nodes: list, dot, scopes: list[dict], out: list[str]) -> None:
    for kind, *rest in nodes:
        if kind == "text":
            out.append(rest[0])
        elif kind == "do":
            words = rest[0]
            if len(words) > 2 and words[1] == ":=":
                scopes[-1][words[0]] = _value(words[2:], dot, scopes)
            elif len(words) > 2 and words[1] == "=":
                next(s for s in reversed(scopes) if words[0] in s)[words[0]] = _value(
                    words[2:], dot, scopes
                )
            else:
                out.append(str(_value(words, dot, scopes)))
        elif kind == "if":
            body = rest[1] if _value(rest[0], dot, scopes) else rest[2]
            _run(body, dot, [*scopes, {}], out)
        else:
            for item in _value(rest[0], dot, scopes):
                _run(rest[1], item, [*scopes, {}], out)


def _value(words: list[str], dot, scopes: list[dict]):
    values = []
    words = list(words)
    while words:
        word = words.pop(0)
        if word == "(":
            depth, inner = 1, []
            while depth:
                inner.append(words.pop(0))
                depth += {"(": 1, ")": -1}.get(inner[-1], 0)
            values.append(_value(inner[:-1], dot, scopes))
        elif word.startswith('"'):
            values.append(_ESCAPE.sub(_unescape, word[1:-1]))
        elif word.startswith("."):
            values.append(_field(dot, word[1:]))
        elif word.startswith("$"):
            name, _, path = word.partition(".")
            values.append(_field(next(s for s in reversed(scopes) if name in s)[name], path))
        else:
            values.append(word)
    if len(values) == 1:
        return values[0]
    name, *arguments = values
    return {
        "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "not": lambda a: not a,
        "and": lambda *a: all(a), "or": lambda *a: any(a),
    }[name](*arguments)  # fmt: skip


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if code[0] in "xuU" and len(code) > 1 else _NAMED[code]


def _field(value, path: str):
    for name in filter(None, path.split(".")):
        value = value[name]
    return value
