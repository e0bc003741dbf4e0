"""Encode conversations with pictures: as every other, but that a processor makes the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.errors import DataError
from peftkit.plugins.examples import Question
from peftkit.plugins.picture import Picture
from peftkit.plugins.pictured import Pictured
from peftkit.plugins.rows import PICTURES, TEXT, Row
from peftkit.preprocessing.chat_template import MARKS, ChatTemplate
from peftkit.preprocessing.dialogue import Dialogue
from peftkit.preprocessing.turns import Rendered

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BatchFeature, ProcessorMixin

MARKED = "a control token stands in what is said beside a picture"


@dataclass(frozen=True)
class PicturedDialogue(Dialogue):
    """Encode one conversation whose pictures become tokens of the row."""

    processor: ProcessorMixin | None = None
    images: tuple[Image, ...] = ()
    known: ChatTemplate | None = None
    """That of the tokenizer, which is looked into once and not for every row."""

    @property
    def template(self) -> ChatTemplate:
        """Return the chat template, told what the recipe tells it."""
        return self.known or ChatTemplate(self.tokenizer, self.rendering)

    def tokenize(self, texts: Sequence[str]) -> list[list[int] | DataError]:
        """Encode rendered texts, each with the pictures that stand in it."""
        return [self._tokenize(text) for text in texts]

    def _tokenize(self, text: str) -> list[int] | DataError:
        if MARKS[0] in text:
            return DataError(MARKED, hint="remove it, or data.dialogue.control_tokens=keep")
        num_shown = text.count(str(self.processor.image_token)) if self.processor else 0
        try:
            made = process(self.processor, [text], [self.images[:num_shown]])
        except ValueError as error:
            return DataError(f"the processor refuses the row: {error}")
        return [int(token) for token in made["input_ids"][0]]

    def row(self, example: Pictured) -> Row | DataError:
        """Return `input_ids`, `labels`, the text that they are of and the pictures' files."""
        layout = self._lay_out(example.talk)
        if not isinstance(layout, Rendered):
            return layout
        texts = [layout.text, *(turn.prompt for turn in layout.turns)]
        encoded = self._label(layout, self.tokenize(texts))
        if isinstance(encoded, DataError):
            return encoded
        files = [{"bytes": one.data or None, "path": one.path} for one in example.pictures]
        return {**encoded, TEXT: layout.text, PICTURES: files}


def encode_pictured(
    examples: Sequence[Pictured], processor: ProcessorMixin
) -> list[list[Row] | DataError]:
    """Encode conversations with pictures; an example's error stands in its place."""
    templates: dict[str, ChatTemplate] = {}
    found: list[list[Row] | DataError] = []
    for example in examples:
        rendering = example.talk.rendering
        known = templates.setdefault(repr(rendering), ChatTemplate(processor.tokenizer, rendering))
        try:
            images = tuple(picture.open() for picture in example.pictures)
        except DataError as error:
            found.append(error)
            continue
        dialogue = PicturedDialogue(processor.tokenizer, rendering, processor, images, known)
        row = dialogue.row(example)
        found.append(row if isinstance(row, DataError) else [row])
    return found


def prompt_text(question: Question, processor: ProcessorMixin) -> str:
    """Return the text that a question is asked in, up to where the answer begins.

    Raises:
        DataError: the template refuses it, or it holds control tokens.
    """
    template = ChatTemplate(processor.tokenizer, question.rendering)
    template.check_fields(question.messages, question.tools)
    text = template.render(*template.said(question.messages, question.tools), is_prompt=True)
    if MARKS[0] in text:
        raise DataError(MARKED, hint="remove it, or data.dialogue.control_tokens=keep")
    return text


def process(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Image]], **options: Any
) -> BatchFeature:
    """Call a processor on rendered texts; the template has written what begins and ends them."""
    shown = [list(one) for one in images]
    return processor(
        text=list(texts), images=shown if any(shown) else None, add_special_tokens=False, **options
    )


def to_picture(file: dict[str, Any]) -> Picture:
    """Return a row's picture from its column."""
    return Picture(file["bytes"] or b"", file["path"] or "")
