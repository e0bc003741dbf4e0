"""What a conversation is to a model: the one place that knows it.

Training rows, their mask and audit, generation, scoring, saved files and exporters ask a `Dialogue`
for the tokens of a conversation and of a prompt, and for the tokens that end an answer, so that no
two of them know different things about one text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.plugins.examples import Conversation, Message, Question
from peftkit.plugins.rendering import PLAIN, Rendering
from peftkit.plugins.rows import IGNORED
from peftkit.preprocessing.chat_template import MARKS, ChatTemplate, TemplateError
from peftkit.preprocessing.turns import Rendered, lay_out
from peftkit.system.templates import conversation_bounds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encoded = dict[str, list[int]]


@dataclass(frozen=True)
class Dialogue:
    """Encode conversations for one tokenizer: a row is its prompts and answers, to the token."""

    tokenizer: PreTrainedTokenizerBase
    rendering: Rendering = PLAIN

    @cached_property
    def template(self) -> ChatTemplate:
        """Return the chat template, told what the recipe tells it."""
        return ChatTemplate(self.tokenizer, self.rendering)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | DataError]:
        """Return `input_ids` and `labels` of each; a DataError for one that cannot be encoded.

        Every trained turn's prompt is the beginning of the row, token by token, and what is
        trained goes from there up to and with the token that ends the turn.

        Raises:
            TemplateError: the chat template is missing, or ends no turn.
        """
        layouts = [self._lay_out(one) for one in conversations]
        good = [one for one in layouts if isinstance(one, Rendered)]
        texts = [text for one in good for text in (one.text, *(turn.prompt for turn in one.turns))]
        encoded = iter(self.tokenize(texts))
        return [
            layout if isinstance(layout, DataError)
            else self._label(layout, [next(encoded) for _ in range(1 + len(layout.turns))])
            for layout in layouts
        ]  # fmt: skip

    def prompt(self, question: Question) -> list[int]:
        """Return the tokens of messages, up to where the answer begins.

        Raises:
            DataError: the template refuses them, or they hold what it cannot render.
        """
        return self.tokens(question.messages, question.tools, is_prompt=True)

    def tokens(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_prompt: bool = False,
    ) -> list[int]:
        """Return the tokens of messages; with the opening of an answer after them, for a prompt.

        Raises:
            DataError: the template refuses them, or they hold what it cannot render.
        """
        self.template.check_fields(messages, tools)
        said = self.template.said(messages, tools)
        (ids,) = self.tokenize([self.template.render(*said, is_prompt=is_prompt)])
        if isinstance(ids, DataError):
            raise ids
        return ids

    def tokenize(self, texts: Sequence[str]) -> list[list[int] | DataError]:
        """Encode rendered texts; control tokens that are marked as said become plain text."""
        plain = [text for text in texts if MARKS[0] not in text]
        options = {"add_special_tokens": False, "verbose": False}
        encoded = iter(self.tokenizer(plain, **options)["input_ids"] if plain else ())
        found: list[list[int] | DataError] = []
        for text in texts:
            if MARKS[0] not in text:
                found.append(next(encoded))
                continue
            try:
                marked = self.tokenizer([text], sanitize_control_tokens=True, **options)
                found.append(list(marked["input_ids"][0]))
            except ValueError as error:  # a token that plain text gives too
                hint = "remove it from the rows, or data.dialogue.control_tokens=keep"
                found.append(DataError(str(error), hint=hint))
        return found

    # Where answers end

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Return the tokens that a trained answer ends in; the first ends the last one.

        Raises:
            TemplateError: the chat template is missing, or ends no turn.
        """
        return tuple(self._ids_of((*self.template.ends, *self.template.call_ends)))

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Return all that ends an answer: what training teaches, and the tokenizer's end token."""
        eos = self.tokenizer.eos_token_id
        taught = self.end_ids if self.tokenizer.chat_template else ()
        return tuple(dict.fromkeys((*taught, *([] if eos is None else [eos]))))

    def _ids_of(self, tokens: Iterable[str]) -> Iterator[int]:
        for token in tokens:
            index = self.tokenizer.convert_tokens_to_ids(token)
            if isinstance(index, int):
                yield index

    # One conversation

    def _lay_out(self, one: Conversation) -> Rendered | DataError:
        try:
            with conversation_bounds(str(self.tokenizer.name_or_path)):
                return lay_out(self.template, one.messages, one.tools, one.trained_turns)
        except TemplateError:
            raise
        except DataError as error:
            return error

    def _label(
        self, layout: Rendered, encoded: Sequence[list[int] | DataError]
    ) -> Encoded | DataError:
        rows = [ids for ids in encoded if not isinstance(ids, DataError)]
        if len(rows) < len(encoded):
            return next(one for one in encoded if isinstance(one, DataError))
        ids, *prompts = rows
        if prompts and ids[: len(prompts[-1])] != prompts[-1]:
            ids = self._joined(layout, ids, prompts[-1])
        stops = self._stops(layout, ids)
        if stops is None:
            return DataError("the token that ends an answer is not where the chat template put it")
        labels = [IGNORED] * len(ids)
        for turn, prompt in zip(layout.turns, prompts, strict=True):
            start, stop = len(prompt), stops[turn.stop]
            if ids[:start] != prompt or stop <= start:
                return DataError(
                    "the answer's first characters merge with the prompt's last token",
                    hint="end the generation prompt of the chat template in a newline or a token",
                )
            labels[start:stop] = ids[start:stop]
        everything = self.rendering.train == "everything"
        return {"input_ids": ids, "labels": list(ids) if everything else labels}

    def _joined(self, layout: Rendered, ids: list[int], prompt: list[int]) -> list[int]:
        """Encode the last answer by itself, as it is generated, where the whole text merges it.

        Nothing is changed where that would read differently: a tokenizer may put a space before it.
        """
        (rest,) = self.tokenize([layout.text[len(layout.turns[-1].prompt) :]])
        if isinstance(rest, DataError):
            return ids
        joined = [*prompt, *rest]
        decode = self.tokenizer.decode
        return joined if decode(joined) == decode(ids) else ids

    def _stops(self, layout: Rendered, ids: list[int]) -> dict[int, int] | None:
        """Place the ends of turns: in the text -> in the tokens; they come in the same order."""
        wanted = set(self.end_ids)
        in_text = [match.end() for match in self.template.end_places(layout.text)]
        in_ids = [at + 1 for at, token in enumerate(ids) if token in wanted]
        return dict(zip(in_text, in_ids, strict=True)) if len(in_text) == len(in_ids) else None


def encode_dialogues(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
) -> list[Encoded | DataError]:
    """Encode conversations, each as its own `rendering` says; see `Dialogue.encode`."""
    found: list[Encoded | DataError] = []
    for rendering, alike in groupby(conversations, key=lambda one: one.rendering):
        found += Dialogue(tokenizer, rendering).encode(list(alike))
    return found


def encode_question(question: Question, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a question's messages, up to where the answer begins."""
    return Dialogue(tokenizer, question.rendering).prompt(question)
