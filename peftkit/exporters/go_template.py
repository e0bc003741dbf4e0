"""Write a table of turns in the template language of Go, as Ollama runs it."""

from __future__ import annotations

from peftkit.exporters.chat_turns import END, START, Turns

PLAIN = "{{ .Prompt }}"
"""The template of a model that knows no turns."""


def go_template(turns: Turns) -> str:
    """Return a template that renders what `turns.render` does, for any conversation.

    Every text stands in a quoted string of printable ASCII, so that nothing in it can end the
    string, the action or the Modelfile's own quotes.
    """
    lines = ['{{- $before := "start" -}}', "{{- range .Messages -}}"]
    if not turns.takes_system:
        lines.append('{{- if ne .Role "system" -}}')
    word = "if"
    for (before, role), text in turns.gaps.items():
        if role == END or not text:
            continue
        lines.append(
            f'{{{{- {word} and (eq $before "{before}") (eq .Role "{role}") -}}}}{_say(text)}'
        )
        word = "else if"
    if word != "if":
        lines.append("{{- end -}}")
    lines += ["{{- .Content -}}", "{{- $before = .Role -}}", "{{- end -}}"]
    if not turns.takes_system:
        lines.append("{{- end -}}")
    for (before, role), text in turns.gaps.items():
        if role == END and text and before not in (START, "assistant"):
            lines.append(f'{{{{- if eq $before "{before}" -}}}}{_say(text)}{{{{- end -}}}}')
    return "\n".join(lines)


def _say(text: str) -> str:
    return f'{{{{- "{escape(text)}" -}}}}'


def escape(text: str) -> str:
    """Escape a text for a quoted string of Go, in ASCII without quotes, braces or line ends."""
    return "".join(_character(character) for character in text)


def _character(character: str) -> str:
    code = ord(character)
    if character.isascii() and character.isprintable() and character not in '"\\{}':
        return character
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if character in named:
        return named[character]
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
