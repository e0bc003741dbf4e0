"""What a task makes of a row: the kinds of examples that methods train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Conversation:
    """Hold one training example as chat messages; every assistant turn is trained."""

    messages: tuple[Mapping[str, str], ...]
    """Each `{"role": ..., "content": ...}`; the last one is the assistant's."""

    @property
    def prompt(self) -> tuple[Mapping[str, str], ...]:
        """Return what the model sees before its last answer."""
        return self.messages[:-1]

    @property
    def reference(self) -> str:
        """Return the last answer, which generation is scored against."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Text:
    """Hold one training example as running text; every token is trained."""

    text: str


@dataclass(frozen=True)
class Labeled:
    """Hold one training example as a text, or a pair of texts, and the label to predict."""

    texts: tuple[str, ...]
    """One text, or two that belong together."""
    label: str
    number: int = -1
    """The label's place among the labels of the training split; set when rows are encoded."""

    @property
    def reference(self) -> str:
        """Return what a prediction is scored against."""
        return self.label


Example = Conversation | Text | Labeled
