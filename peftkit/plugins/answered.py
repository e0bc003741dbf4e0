"""Examples of answers to a prompt that are compared or judged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from peftkit.plugins.examples import Example, Message, Question, plain_prompt, with_system
from peftkit.plugins.rendering import PLAIN, Rendering


@dataclass(frozen=True)
class Answered(Example):
    """Hold a prompt of which answers are known: a kind says which ones."""

    messages: tuple[Message, ...]
    """Chat messages up to the answers."""
    rendering: Rendering = field(default=PLAIN, kw_only=True)
    """How they become text."""

    def rendered(self, rendering: Rendering) -> Self:
        """Return the same example, to become text as a recipe says."""
        messages = with_system(self.messages, rendering.system)
        return replace(self, messages=messages, rendering=replace(rendering, system=None))

    def question(self) -> Question:
        """Return the messages."""
        return Question(messages=self.messages, rendering=self.rendering)

    @property
    def asked(self) -> Any:
        """Return roles and texts: answers to one prompt never fall into different splits."""
        return [[message["role"], message["content"]] for message in self.messages]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return the messages, which a trained model can be asked to answer."""
        return self.messages

    @property
    def answer(self) -> str:
        """Return the answer that is the reference too."""
        return self.reference

    def sample(self) -> dict[str, Any]:
        """Return the messages, or the text alone where a user asked just that."""
        return {"prompt": plain_prompt(self.messages)}


@dataclass(frozen=True)
class Preference(Answered):
    """Hold a prompt, the answer that is preferred, and one that is not."""

    chosen: tuple[Message, ...]
    """The answer that is preferred: the assistant's message, or several turns that end with one."""
    rejected: tuple[Message, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what each message says, and both answers."""
        said = (*self.messages, *self.chosen, *self.rejected)
        return tuple(message["content"] for message in said)

    @property
    def reference(self) -> str:
        """Return the preferred answer, which a generated one is scored against."""
        return str(self.chosen[-1]["content"])


@dataclass(frozen=True)
class Verdict(Answered):
    """Hold a prompt and one answer, with whether it is a good one."""

    completion: tuple[Message, ...]
    """The answer: the assistant's message, or several turns that end with one."""
    is_good: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what each message says, and the answer."""
        return tuple(message["content"] for message in (*self.messages, *self.completion))

    @property
    def reference(self) -> str:
        """Return the answer."""
        return str(self.completion[-1]["content"])
