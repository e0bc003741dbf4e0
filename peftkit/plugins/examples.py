"""What a task makes of a row: the kinds of examples that methods train on.

An example says of itself what the house asks of any: what was asked, what answers it, which texts
it holds, what tells it from others and what a sample shows. A further kind is a further subclass.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftkit.plugins.rendering import PLAIN, Rendering

if TYPE_CHECKING:
    from peftkit.plugins.picture import Picture

Message = Mapping[str, Any]
"""`{"role": ..., "content": ...}`, both text, and what else the chat template is to render:
`tool_calls`, `reasoning_content` ...; `weight: 0` marks an answer that is not trained."""
_PLAIN_KEYS = {"role", "content"}
PICTURE = "\U000f0002"
"""Marks in a message's text where a picture stands; no tokenizer ever sees it."""


@dataclass(frozen=True)
class Question:
    """Hold what a model is given before its answer."""

    messages: tuple[Message, ...] = ()
    """Chat messages up to the answer; empty where a text is continued or labelled instead."""
    text: str = ""
    """Running text that the model goes on writing."""
    texts: tuple[str, ...] = ()
    """A text, or two that belong together, whose label is asked for."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the chat template offers."""
    rendering: Rendering = PLAIN
    """How the messages become text."""
    pictures: tuple[Picture, ...] = ()
    """In the order of their marks in the messages."""
    is_shortened: bool = False
    """Whether its document is shorter than the one that was given, to leave room."""

    def rendered(self, rendering: Rendering) -> Question:
        """Return the same question, to become text as a recipe says."""
        messages = with_system(self.messages, rendering.system)
        return dataclasses.replace(self, messages=messages, rendering=rendering)


class Example(ABC):
    """Say what the house asks of an example, whatever its kind."""

    rendering: Rendering = PLAIN
    """How it becomes text, where it is messages."""

    @property
    @abstractmethod
    def texts(self) -> tuple[str, ...]:
        """Return all of its texts, which a tokenizer is trained on and lengths are measured of."""

    @property
    def asked(self) -> Any:
        """Return what the model is asked, as plain data: equal where two rows ask the same."""
        return list(self.texts)

    @property
    def kept_together(self) -> Any:
        """Return what examples share that must not be parted by a cut, e.g. the text asked about.

        By default they are those that ask the same.
        """
        return self.asked

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return the chat messages before the answer; empty where nothing is generated."""
        return ()

    @property
    def reference(self) -> str:
        """Return what an answer is scored against; empty where nothing is answered."""
        return ""

    @property
    def answer(self) -> str:
        """Return the text that is trained as an answer; empty where the whole text is."""
        return ""

    @property
    def class_label(self) -> str | None:
        """Return the label to predict; None where there is none."""
        return None

    @property
    def value(self) -> float | None:
        """Return the number to predict; None where there is none."""
        return None

    def with_label(self, label: str, number: int = -1) -> Example:
        """Return the same example under another spelling or number of its label."""
        del label, number
        return self

    def rendered(self, rendering: Rendering) -> Example:
        """Return the same example, to become text as a recipe's `data.dialogue` says."""
        del rendering
        return self

    def question(self) -> Question:
        """Return what a trained model is given of it."""
        return Question(messages=self.prompt)

    def sample(self) -> dict[str, Any]:
        """Return what `samples.jsonl` shows of the question; empty where nothing is asked."""
        return {}

    def problem(self) -> str:
        """Say what a task made wrongly; empty for an example that can be trained on."""
        return "" if all(text.strip() for text in self.texts) and self.texts else "has no text"


@dataclass(frozen=True)
class Conversation(Example):
    """Hold one training example as chat messages; every assistant turn is trained."""

    messages: tuple[Message, ...]
    """Each `{"role": ..., "content": ...}`; the last one is the assistant's."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of the functions that the assistant may call."""
    rendering: Rendering = PLAIN
    """How it becomes text."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what each message says."""
        return tuple(message["content"] for message in self.messages)

    @property
    def asked(self) -> Any:
        """Return roles and texts before the last answer, and what else the template is told."""
        turns = [
            [message["role"], message["content"], *_further(message)] for message in self.prompt
        ]
        return [*turns, list(self.tools)] if self.tools else turns

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return what the model sees before its last answer."""
        return self.messages[:-1]

    @property
    def reference(self) -> str:
        """Return the last answer, which generation is scored against."""
        return str(self.messages[-1]["content"])

    @property
    def answer(self) -> str:
        """Return the last answer."""
        return self.reference

    @property
    def trained_turns(self) -> tuple[int, ...]:
        """Return the places of the turns that are trained."""
        train = self.rendering.train
        roles = ["assistant"] if isinstance(train, str) else train
        turns = [at for at, message in enumerate(self.messages) if message["role"] in roles]
        if train == "last_answer":
            turns = turns[-1:]
        return tuple(at for at in turns if self.messages[at].get("weight", 1))

    def rendered(self, rendering: Rendering) -> Conversation:
        """Return the same conversation, to become text as the recipe says."""
        messages = with_system(self.messages, rendering.system)
        plain = dataclasses.replace(rendering, system=None)
        return dataclasses.replace(self, messages=messages, rendering=plain)

    def question(self) -> Question:
        """Return the messages before the last answer."""
        return Question(messages=self.prompt, tools=self.tools, rendering=self.rendering)

    def sample(self) -> dict[str, Any]:
        """Return the messages, or the text alone where a user asked just that."""
        return {"prompt": plain_prompt(self.prompt)}

    def problem(self) -> str:
        """Say whether the assistant answers something."""
        if self.messages[-1]["role"] != "assistant":
            return "ends in a message that is not the assistant's"
        if not self.reference.strip() and not _further(self.messages[-1]):
            return "has an empty answer"
        return "" if self.prompt else "answers nothing"


@dataclass(frozen=True)
class Text(Example):
    """Hold one training example as running text; every token is trained."""

    text: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the one text."""
        return (self.text,)

    @property
    def asked(self) -> Any:
        """Return the text."""
        return self.text

    def question(self) -> Question:
        """Return the text, to be continued."""
        return Question(text=self.text)


@dataclass(frozen=True)
class Judged(Example):
    """Hold a text, or a pair of texts, of which something is to be predicted."""

    passages: tuple[str, ...]
    """One text, or two that belong together."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the text or the pair."""
        return self.passages

    @property
    @abstractmethod
    def target(self) -> int | float:
        """Return the number that a row is trained on."""

    def question(self) -> Question:
        """Return the text or the pair."""
        return Question(texts=self.passages)

    def sample(self) -> dict[str, Any]:
        """Return the text; of a pair also each by itself."""
        apart = {"texts": list(self.passages)} if len(self.passages) > 1 else {}
        return {"prompt": "\n\n".join(self.passages), **apart}


@dataclass(frozen=True)
class Labeled(Judged):
    """Hold one training example as a text, or a pair of texts, and the label to predict."""

    label: str
    number: int = -1
    """The label's place among the labels of the training split; set when rows are encoded."""

    @property
    def target(self) -> int:
        """Return the label's number."""
        return self.number

    @property
    def reference(self) -> str:
        """Return what a prediction is scored against."""
        return self.label

    @property
    def class_label(self) -> str:
        """Return the label."""
        return self.label

    def with_label(self, label: str, number: int = -1) -> Labeled:
        """Return the same texts under another spelling or number of their label."""
        return Labeled(self.passages, label, number)

    def problem(self) -> str:
        """Say whether a text or the label is missing."""
        return super().problem() or ("" if self.label else "has no label")


@dataclass(frozen=True)
class Span:
    """Hold a stretch of a text, by its first character."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """Return the character behind its last one."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Spans(Example):
    """Hold one training example as a question about a text, and the stretches that answer it."""

    asks: str
    context: str
    spans: tuple[Span, ...] = ()
    """Each is right; the first is trained. None where the text does not answer."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the question and what it is about."""
        return (self.asks, self.context)

    @property
    def kept_together(self) -> Any:
        """Return the text: a cut leaves all questions about it on one side."""
        return self.context

    @property
    def reference(self) -> str:
        """Return the answers, one a line; empty where there is none."""
        return "\n".join(dict.fromkeys(" ".join(span.text.split()) for span in self.spans))

    @property
    def answer(self) -> str:
        """Return the answer that is trained."""
        return self.spans[0].text if self.spans else ""

    def question(self) -> Question:
        """Return the question and the text."""
        return Question(texts=self.texts)

    def sample(self) -> dict[str, Any]:
        """Return the question above its text, and each by itself."""
        return {"prompt": "\n\n".join(self.texts), "texts": list(self.texts)}

    def problem(self) -> str:
        """Say whether a text is missing, or an answer does not stand where it should."""
        for span in self.spans:
            if not span.text or self.context[span.start : span.end] != span.text:
                return f"has an answer {span.text!r} that is not at {span.start} of its context"
        return super().problem()


@dataclass(frozen=True)
class Rated(Judged):
    """Hold one training example as a text, or a pair of texts, and the number to predict."""

    rating: float

    @property
    def target(self) -> float:
        """Return the number."""
        return self.rating

    @property
    def value(self) -> float:
        """Return the number."""
        return self.rating

    @property
    def reference(self) -> str:
        """Return the number as text, which a prediction is scored against."""
        return show_number(self.rating)

    def problem(self) -> str:
        """Say whether a text is missing, or the number is none."""
        return super().problem() or ("" if math.isfinite(self.rating) else "has no finite number")


def with_system(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """Put a system message before messages that have none."""
    if not system or not messages or messages[0]["role"] in ("system", "developer"):
        return messages
    return ({"role": "system", "content": system}, *messages)


def show_number(value: float) -> str:
    """Write a number that is to be predicted, or that was, to six digits."""
    return f"{value:.6g}"


def _further(message: Message) -> list[Any]:
    """Return what a message holds besides its role and its text; nothing for most."""
    further = {key: value for key, value in message.items() if key not in _PLAIN_KEYS}
    return [further] if further else []


def plain_prompt(messages: Sequence[Message]) -> Any:
    """Return messages as plain data, or the text alone where a user asked just that."""
    is_plain = len(messages) == 1 and messages[0]["role"] == "user"
    return messages[0]["content"] if is_plain else [dict(message) for message in messages]


def kinds_of(names: Sequence[type]) -> str:
    """Write kinds of examples as a message does: `Conversation or Text`."""
    return " or ".join(kind.__name__ for kind in names)
