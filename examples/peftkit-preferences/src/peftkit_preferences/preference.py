"""Prompts with two answers, one of which is preferred, and the task that makes them of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftkit.plugins import Example, Task
from peftkit.plugins.examples import Message
from peftkit.sources.columns import read_text


@dataclass(frozen=True)
class Preference(Example):
    """Hold a prompt, the answer that is preferred, and one that is not."""

    messages: tuple[Message, ...]
    """Chat messages up to the answer."""
    chosen: str
    rejected: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what each message says, and both answers."""
        return (*(message["content"] for message in self.messages), self.chosen, self.rejected)

    @property
    def asked(self) -> Any:
        """Return roles and texts: pairs of one prompt never fall into different splits."""
        return [[message["role"], message["content"]] for message in self.messages]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return the messages, which a trained model can be asked to answer."""
        return self.messages


@dataclass(frozen=True)
class Config:
    """Say which columns hold what."""

    prompt: str = "prompt"
    """Column of what the model is asked."""
    chosen: str = "chosen"
    """Column of the answer that is preferred."""
    rejected: str = "rejected"
    """Column of the answer that is not."""
    system: str | None = None
    """System message before every prompt; absent, there is none."""


class PreferenceTask(Task):
    """Turn a prompt and two answers into an example of which one is preferred."""

    Config = Config
    makes = (Preference,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the three columns."""
        return (self.config.prompt, self.config.chosen, self.config.rejected)

    def example(self, row: Mapping[str, Any]) -> Preference:
        """Make one example of one row.

        Raises:
            DataError: a text is missing, null or empty.
        """
        prompt, chosen, rejected = (read_text(row, column).strip() for column in self.columns)
        system = ({"role": "system", "content": self.config.system},) if self.config.system else ()
        return Preference((*system, {"role": "user", "content": prompt}), chosen, rejected)
