"""Conversations with pictures: what a task makes of rows for a model that sees."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from peftkit.plugins.examples import PICTURE, Conversation, Example, Message, Question
from peftkit.plugins.picture import Picture
from peftkit.plugins.rendering import Rendering

SHOWN = "[picture]"
"""What stands for a picture where a person reads a conversation."""


@dataclass(frozen=True)
class Pictured(Example):
    """Hold a conversation, and the pictures whose places its texts mark with `PICTURE`."""

    talk: Conversation
    pictures: tuple[Picture, ...]
    """In the order of their places."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what each message says."""
        return self.talk.texts

    @property
    def asked(self) -> Any:
        """Return what is said before the last answer, and which pictures are shown."""
        return [self.talk.asked, [picture.digest for picture in self.pictures]]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return what the model sees before its last answer."""
        return self.talk.prompt

    @property
    def reference(self) -> str:
        """Return the last answer, which generation is scored against."""
        return self.talk.reference

    @property
    def answer(self) -> str:
        """Return the last answer."""
        return self.talk.answer

    def rendered(self, rendering: Rendering) -> Pictured:
        """Return the same conversation, to become text as the recipe says."""
        return dataclasses.replace(self, talk=self.talk.rendered(rendering))

    def question(self) -> Question:
        """Return the messages before the last answer, and their pictures."""
        num = sum(str(message["content"]).count(PICTURE) for message in self.prompt)
        return dataclasses.replace(self.talk.question(), pictures=self.pictures[:num])

    def sample(self) -> dict[str, Any]:
        """Return the messages, a word in the place of each picture, and what the pictures are."""
        messages = tuple(
            {**message, "content": str(message["content"]).replace(PICTURE, f"{SHOWN} ")}
            for message in self.talk.messages
        )
        shown = dataclasses.replace(self.talk, messages=messages).sample()
        return {**shown, "pictures": [one.path or one.digest for one in self.pictures]}

    def problem(self) -> str:
        """Say whether pictures and their places match, and what is wrong with what is said."""
        num = sum(text.count(PICTURE) for text in self.texts)
        if num != len(self.pictures):
            return f"has {len(self.pictures)} pictures and {num} places for them"
        return self.talk.problem()
