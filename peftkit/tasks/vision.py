"""Answer about pictures: one question and its answer, or whole conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from peftkit.errors import DataError, EmptyValueError
from peftkit.plugins import PICTURE, Conversation, Example, Picture, Pictured, Question, Task
from peftkit.sources.columns import describe_kind, look_up, read_text
from peftkit.sources.messages import parsed, read_messages
from peftkit.tasks.metrics import exact_match, rouge, rouge_note, token_f1

PLACE = "<image>"
"""How many files write in a text that a picture stands there."""
_OWN = {"image", "image_url", "url", "path"}


@dataclass(frozen=True)
class ImageTextConfig:
    """Say which columns hold what."""

    image: str = "image"
    """Column of the picture: a file's path, its bytes, or what a dataset holds; or a list of
    them."""
    question: str | None = "question"
    """Column of what is asked about it; null where `instruction` is asked of all."""
    answer: str = "answer"
    """Column of the answer wanted."""
    instruction: str = ""
    """What stands above the question, or is the question where there is no column."""
    folder: Path | None = None
    """Where paths of pictures start; the working directory when absent."""


class ImageText(Task):
    """Turn picture, question and answer into an example."""

    Config: ClassVar[type | str] = ImageTextConfig
    headline: ClassVar[str] = "exact_match"
    makes: ClassVar[tuple[type[Example], ...]] = (Pictured,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.image, self.config.question, self.config.answer)
        return tuple(column for column in named if column)

    def example(self, row: Mapping[str, Any]) -> Pictured:
        """Make one example of one row.

        Raises:
            DataError: the picture, the question or the answer is missing or cannot be used.
        """
        asked = self.question(row)
        answer = read_text(row, self.config.answer).strip()
        messages = (*asked.messages, {"role": "assistant", "content": answer})
        return Pictured(Conversation(messages), asked.pictures)

    def question(self, row: Mapping[str, Any]) -> Question:
        """Ask about the picture; the answer may be missing.

        Raises:
            DataError: the picture or the question is missing or cannot be used.
        """
        config: ImageTextConfig = self.config
        pictures = tuple(read_pictures(look_up(row, config.image), config.image, config.folder))
        asked = read_text(row, config.question) if config.question else ""
        text = "\n\n".join(part for part in (config.instruction, asked) if part)
        content = PICTURE * len(pictures) + _plain(text)
        return Question(messages=({"role": "user", "content": content},), pictures=pictures)

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score answers in 0..1: exact match, word F1 and ROUGE-L."""
        return {
            **exact_match(predictions, references),
            **token_f1(predictions, references),
            **rouge(predictions, references, types=("rougeL",)),
        }

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(),)

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Give the answer that most of these rows have to all of them, as one who sees nothing."""
        counts = Counter(read_text(row, self.config.answer).strip() for row in rows)
        return {"most_frequent": [counts.most_common(1)[0][0]] * len(rows)} if counts else {}


@dataclass(frozen=True)
class ImageChatConfig:
    """Say which columns hold what."""

    messages: str = "messages"
    """Column of the conversation. Content is text, in which `<image>` stands for a picture, or a
    list of parts: `{type: text, text: ...}`, `{type: image, image: ...}`, or `{type: image}` for
    the next of `images`."""
    images: str | None = "images"
    """Column of a list of pictures; null where messages hold them all. Those without a place in
    the messages stand before the first question."""
    folder: Path | None = None
    """Where paths of pictures start; the working directory when absent."""


class ImageChat(Task):
    """Take a conversation in which pictures are shown."""

    Config: ClassVar[type | str] = ImageChatConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Pictured,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.messages, self.config.images)
        return tuple(column for column in named if column)

    def example(self, row: Mapping[str, Any]) -> Pictured:
        """Make one example of one row.

        Raises:
            DataError: no conversation, no pictures, or pictures without a place.
        """
        config: ImageChatConfig = self.config
        given = look_up(row, config.images) if config.images else None
        waiting = list(read_pictures(given, config.images or "", config.folder)) if given else []
        held = parsed(row.get(config.messages))
        if not isinstance(held, list | tuple):
            raise EmptyValueError(f"{config.messages} is {describe_kind(held)}, not messages")
        shown: list[Picture] = []
        written = [self._written(message, waiting, shown) for message in held]
        if waiting and not shown:
            first = next((m for m in written if m.get("role") == "user"), None)
            if first is not None:
                first["content"] = PICTURE * len(waiting) + str(first["content"])
                shown, waiting = waiting, []
        if waiting:
            raise DataError(f"{len(waiting)} of {config.images} have no place in the messages")
        example = Pictured(Conversation(read_messages(written, config.messages)), tuple(shown))
        if problem := example.problem():
            raise DataError(f"{config.messages} {problem}")
        return example

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score last answers in 0..1: ROUGE-L and exact match."""
        return {
            **rouge(predictions, references, types=("rougeL",)),
            **exact_match(predictions, references),
        }

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(),)

    def _written(
        self, message: Any, waiting: list[Picture], shown: list[Picture]
    ) -> dict[str, Any]:
        """Return a message with text alone, its pictures marked and moved to those shown."""
        if not isinstance(message, Mapping):
            raise DataError(f"{self.config.messages} holds {describe_kind(message)}")
        content, texts = message.get("content"), []
        if isinstance(content, str):
            pieces = _plain(content).split(PLACE)
            for number, piece in enumerate(pieces):
                if number:
                    shown.append(self._next(waiting))
                    texts.append(PICTURE)
                texts.append(piece)
            return {**message, "content": "".join(texts)}
        for part in content if isinstance(content, list | tuple) else ():
            if isinstance(part, Mapping) and part.get("type", "text") in ("image", "image_url"):
                own = next((part[key] for key in sorted(_OWN & part.keys()) if part[key]), None)
                found = read_pictures(own, self.config.messages, self.config.folder) if own else ()
                shown += list(found) or [self._next(waiting)]
                texts.append(PICTURE)
            else:
                texts.append(_plain(str(part.get("text") if isinstance(part, Mapping) else part)))
        return {**message, "content": "".join(texts)}

    def _next(self, waiting: list[Picture]) -> Picture:
        if not waiting:
            raise DataError(
                f"{self.config.messages} shows more pictures than {self.config.images} holds"
            )
        return waiting.pop(0)


def read_pictures(value: Any, column: str, folder: Path | None) -> Iterator[Picture]:
    """Give the pictures of a cell: a path, bytes, a dataset's picture, or a list of them.

    Raises:
        DataError: there is none, or a file is not there.
    """
    if value is None or value in ([], ""):
        raise EmptyValueError(f"{column} has no picture")
    for one in value if isinstance(value, list | tuple) else [value]:
        yield _picture(one, column, folder)


def _picture(value: Any, column: str, folder: Path | None) -> Picture:
    if isinstance(value, Mapping) and {"bytes", "path", "url"} & value.keys():
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, bytes):
        return Picture(data=value)
    if isinstance(value, str):
        if "://" in value:
            raise DataError(f"{column} has the address {value}: nothing is downloaded",
                            hint="save pictures beside the rows, and name their paths")  # fmt: skip
        file = (folder or Path()) / value
        if not file.is_file():
            raise DataError(
                f"{column}: there is no file {file}",
                hint="the task's `folder` says where paths start",
            )
        return Picture(path=str(file))
    from PIL.Image import Image

    if isinstance(value, Image):
        return Picture(data=_to_png(value))
    raise DataError(f"{column} is {describe_kind(value)}, not a picture")


def _to_png(image: Any) -> bytes:
    """Return the bytes of a picture that a dataset has decoded."""
    import io

    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def _plain(text: str) -> str:
    """Return a text that holds no mark of ours."""
    if PICTURE in text:
        raise DataError("the text holds U+F0002, which marks where pictures stand")
    return text
