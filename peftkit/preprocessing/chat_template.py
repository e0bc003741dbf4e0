"""A chat template at work: what it writes around messages, and where each answer stands in it.

Everything here is text; `dialogue` makes tokens of it. What a template does not say of itself is
found out by use. It ends an answer with the token that it writes after one in a conversation of
plain words. Where an answer stands is seen by rendering once more with a character of no meaning
at its end, which nobody reads but the search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as day
from functools import cached_property
from typing import TYPE_CHECKING, Any

from peftkit.embedded.named_templates import OWN_TEMPLATES
from peftkit.errors import DataError
from peftkit.plugins.examples import PICTURE, Message
from peftkit.plugins.rendering import Rendering
from peftkit.system.templates import RefusedByTemplateError, render_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WAY_OUT = "give a template that does, as `model.chat_template: NAME` or a file"
MARKS = "\U000f0000\U000f0001"
"""What transformers' `mark_control_tokens` puts around control tokens that are only said."""
NO_TEMPLATE = (
    "model.chat_template=alpaca needs no more than an end token; it takes"
    f" {', '.join(OWN_TEMPLATES)}, others (peftkit explain model.chat_template) and Jinja files"
)
_MARK = re.compile(f"[{MARKS}]")
_ROLES = {"s": "system", "u": "user", "a": "assistant"}
_PROBES = ("ua", "sua", "uaua", "suaua")
"""Conversations by the first letters of their roles; a template may refuse some."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys of which the template sees all where a message has one: `apply_chat_template` sees to it."""
_UNSEEN = {"role", "content", "weight", "tool_call_id"}
"""What need not be rendered: names that only tie a result to its call, and what is no text."""
_DIRECTIVES = "YymdBbAajeHMSIp"
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateError(DataError):
    """Raised when no row can be encoded, because of the chat template and not of the row."""


@dataclass(frozen=True)
class ChatTemplate:
    """Know what one tokenizer's chat template writes, told what a recipe tells it."""

    tokenizer: PreTrainedTokenizerBase
    rendering: Rendering

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_prompt: bool = False,
    ) -> str:
        """Render messages.

        Args:
            is_prompt: whether the opening of an answer follows.

        Raises:
            DataError: the template refuses them.
            ArtefactError: it computes without an end.
        """
        text: str = render_template(
            self.tokenizer,
            self._told(messages),
            tools=[dict(tool) for tool in tools] or None,
            chat_template=self._with_tools if tools else self.source,
            tokenize=False,
            add_generation_prompt=is_prompt,
            **self.rendering.chat_template_kwargs,
        )
        return text

    def _told(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return messages as the template takes them: without our own key, texts maybe as parts."""
        told = []
        for message in messages:
            one = {key: value for key, value in message.items() if key != "weight"}
            content = one.get("content")
            if isinstance(content, str) and (self._takes_parts or PICTURE in content):
                one["content"] = list(_parts(content))
            told.append(one)
        return told

    @cached_property
    def _takes_parts(self) -> bool:
        """Tell whether texts must be lists of parts, as in templates of models that see images."""

        def shows(content: Any) -> bool:
            try:
                turn = [{"role": "user", "content": content}]
                return "QxQ" in render_template(
                    self.tokenizer, turn, chat_template=self.source, tokenize=False
                )
            except RefusedByTemplateError:
                return False

        return not shows("QxQ") and shows([{"type": "text", "text": "QxQ"}])

    @cached_property
    def source(self) -> str:
        """Return the template, in which today is the day that the recipe says.

        Raises:
            TemplateError: the tokenizer has none.
        """
        return self._source(has_tools=False)

    @cached_property
    def _with_tools(self) -> str:
        return self._source(has_tools=True)

    def _source(self, *, has_tools: bool) -> str:
        if not self.tokenizer.chat_template:
            raise TemplateError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} has no chat"
                " template",
                hint=NO_TEMPLATE,
            )
        found: str = self.tokenizer.get_chat_template(tools=[{}] if has_tools else None)
        return _dated(found, self.rendering.date)

    @property
    def writes_date(self) -> bool:
        """Tell whether it writes today's date."""
        return "strftime_now" in self.source

    def check_fields(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
        """Refuse what a row holds and the template does not speak of.

        Raises:
            DataError: names the first such key.
        """
        if tools and not self._speaks_of("tools"):
            raise DataError("the row has tools, which the chat template does not render",
                            hint=f"remove them, or {WAY_OUT}")  # fmt: skip
        for at, message in enumerate(messages):
            for key, value in message.items():
                names = REASONING if key in REASONING else (key,)
                is_seen = key in _UNSEEN or any(map(self._speaks_of, names))
                if value is not None and not is_seen and (key, message["role"]) != ("name", "tool"):
                    raise DataError(
                        f"message {at} has {key!r}, which the chat template does not render",
                        hint=f"remove it, data.task.chat.ignore=[{key}], or {WAY_OUT}",
                    )

    def _speaks_of(self, name: str) -> bool:
        return re.search(rf"\b{re.escape(name)}\b", self._with_tools) is not None

    # What is said, and what is structure

    def said(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Message], list[Mapping[str, Any]]]:
        """Mark the control tokens that stand in what is said, as the recipe wants it.

        An answer may hold what models write themselves (`<think>`): there only special tokens
        are control tokens, elsewhere also those that the template writes.

        Raises:
            DataError: there are some, and the recipe refuses them.
        """
        from transformers.utils.chat_template_utils import mark_control_tokens

        if self.rendering.control_tokens == "keep":
            return list(messages), list(tools)
        marked: list[Message] = []
        for at, message in enumerate(messages):
            pattern = self._special if message["role"] == "assistant" else self._control
            texts = {key: value for key, value in message.items() if key != "role"}
            found = next(_matches(pattern, texts), None)
            if next(_matches(_MARK, texts), None):
                raise DataError(
                    f"message {at} holds U+F0000 or U+F0001, which mark control tokens",
                    hint="remove those characters, or data.dialogue.control_tokens=keep",
                )
            if found is not None and self.rendering.control_tokens == "refuse":
                raise DataError(
                    f"message {at} holds the control token {found!r}",
                    hint="data.dialogue.control_tokens=escape encodes it as text, keep as a token",
                )
            said = message if found is None else mark_control_tokens(texts, pattern)
            marked.append({"role": message["role"], **said})
        has_any = next(_matches(self._control, tools), None) is not None
        return marked, mark_control_tokens(list(tools), self._control) if has_any else list(tools)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        return _any_of(token.content for token in added if token.special)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        stated = self.tokenizer.chat_control_tokens
        written = self._with_tools if stated is None else stated
        return _any_of(
            token.content
            for token in added
            if token.special or (token.content in written and token.content.strip())
        )

    # Where answers end

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """Return the tokens that it writes after an answer of plain words.

        Raises:
            TemplateError: it writes none.
        """
        last: dict[str, None] = {}
        earlier: dict[str, None] = {}
        asked: dict[str, None] = {}
        shown = [gaps for gaps in map(self._gaps, _PROBES) if gaps]
        for gaps in shown:
            for letter, token in gaps[:-1]:
                (earlier if letter == "a" else asked)[token] = None
            last[gaps[-1][1]] = None
        last.pop("", None)
        if shown and not last:
            raise no_end()
        # What follows an earlier answer may be the next question's opening, and no end.
        return tuple(
            {**last, **{token: None for token in earlier if token in {*last, *asked} - {""}}}
        )

    def _gaps(self, letters: str) -> list[tuple[str, str]]:
        """Return the first token behind each of some messages; nothing for what is refused."""
        contents = [f"Qx{at}zQ" for at in range(len(letters))]
        pairs = zip(letters, contents, strict=True)
        try:
            text = self.render(
                [{"role": _ROLES[letter], "content": said} for letter, said in pairs]
            )
        except DataError:
            return []
        bounds = [*(text.rfind(content) for content in contents), len(text)]
        found = []
        for letter, start, stop in zip(letters, bounds, bounds[1:], strict=False):
            match = self._tokens.search(text, start, stop) if start >= 0 else None
            found.append((letter, match.group() if match else ""))
        return found

    @cached_property
    def call_ends(self) -> tuple[str, ...]:
        """Return the special tokens that end a turn which calls a function, and no other."""
        if not self._speaks_of("tool_calls"):
            return ()
        arguments = {"QaQ": "QxQ"}
        call = {"type": "function", "function": {"name": "QnQ", "arguments": arguments}}
        turns: list[Message] = [
            {"role": "user", "content": "QuQ"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        function = {"name": "QnQ", "description": "QdQ", "parameters": {}}
        try:
            text = self.render(turns, [{"type": "function", "function": function}])
        except DataError:
            return ()
        place = text.rfind("QxQ")
        if place < 0 or any(end in text[place:] for end in self.ends):
            return ()
        opened = {_bare(token) for token in _matches(self._tokens, text[:place])}
        found = (token for token in _matches(self._special, text[place:]))
        return tuple(token for token in found if _bare(token) not in opened)[:1]

    @cached_property
    def _tokens(self) -> re.Pattern[str]:
        """Match whatever token could end a turn; not whitespace, which some tokenizers add."""
        eos = self.tokenizer.eos_token
        known = {*self.tokenizer.get_added_vocab(), *([eos] if eos else [])}
        return _any_of(token for token in known if token.strip())

    def check_single_end(self, said: str, at: int) -> None:
        """Refuse an answer that would end twice.

        Raises:
            DataError: it holds a token that ends a turn.
        """
        found = next((match.group() for match in self.end_places(f" {said}")), None)
        if found is not None:
            raise DataError(
                f"message {at} holds the end token {found!r}, and the template writes another, so"
                " that the model would learn to stop and to go on",
                hint="remove it from the rows, or data.dialogue.control_tokens=escape",
            )

    def end_places(self, text: str) -> list[re.Match[str]]:
        """Find every token that may end a turn in a rendered text, said ones left out."""
        wanted = {*self.ends, *self.call_ends}
        found = self._tokens.finditer(text)
        return [
            match
            for match in found
            if match.group() in wanted and text[match.start() - 1] != MARKS[0]
        ]


def _dated(source: str, date: str | None) -> str:
    """Define the template's function of today's date by that of a fixed day.

    Variables of a template cannot be functions, but it may define its own. The newline is Jinja's
    to drop, so that what follows begins as it did.
    """
    if date is None or "strftime_now" not in source:
        return source
    today = day.fromisoformat(date)
    replaced = "".join(
        f" | replace('%{flag}{letter}', {today.strftime(f'%{flag}{letter}')!r})"
        for letter in _DIRECTIVES
        for flag in ("", "-")
    )
    return (
        "{%- macro strftime_now(format) -%}{{- format" + replaced + " -}}{%- endmacro %}\n" + source
    )


def _any_of(tokens: Iterator[str] | Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(set(tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _matches(pattern: re.Pattern[str], value: Any) -> Iterator[str]:
    """Give what a pattern finds in every text of nested data."""
    if isinstance(value, str):
        yield from pattern.findall(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _matches(pattern, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _matches(pattern, inner)


def _bare(token: str) -> str:
    """Name what a token opens or closes, the same for both: `<tool_call>` and `</tool_call>`."""
    return re.sub(r"[^a-z]|begin|start|end", "", token.lower())


def no_end(at: int | None = None) -> DataError:
    """Make the refusal of a template that ends no turn, or not that of one message."""
    hint = (
        "end the assistant's turn with {{ eos_token }} in a template of your own, as"
        " `model.chat_template: FILE`"
    )
    if at is None:
        return TemplateError(
            "the chat template writes no end-of-turn token after an assistant's answer,"
            " so the model would never learn to stop",
            hint=hint,
        )
    return DataError(
        f"the chat template writes no end-of-turn token after message {at}, so the model would"
        " never learn to stop there",
        hint=f"data.dialogue.train=last_answer, or {hint}",
    )


def _parts(content: str) -> Iterator[dict[str, str]]:
    """Give a text as templates of models that see want it: in parts, pictures between texts."""
    for number, text in enumerate(content.split(PICTURE)):
        if number:
            yield {"type": "image"}
        if text or PICTURE not in content:
            yield {"type": "text", "text": text}
