"""Learn from conversations, of one turn or of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Example, Task
from peftkit.sources.columns import describe_kind
from peftkit.tasks.metrics import bleu_and_chrf, rouge, rouge_note, sacrebleu_note

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class ChatConfig:
    """Say which column holds the conversation, and its words for who speaks and what."""

    messages: str = "messages"
    """Column of the list of messages."""
    role: str = "role"
    """Key of a message's role; `from` in ShareGPT files."""
    content: str = "content"
    """Key of a message's text; `value` in ShareGPT files."""
    roles: dict[str, str] = field(default_factory=dict)
    """The file's word for a role -> ours, e.g. `{human: user, gpt: assistant}`."""


class Chat(Task):
    """Take a list of messages as it is; every assistant turn is trained."""

    Config: ClassVar[type | str] = ChatConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Conversation,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        return (self.config.messages,)

    def example(self, row: Mapping[str, Any]) -> Conversation:
        """Make one example of one row.

        Raises:
            DataError: no list of messages, an unknown role, empty content, turns that do not
                alternate, or no assistant's turn at the end.
        """
        name = self.config.messages
        value = row.get(name)
        if not isinstance(value, list | tuple) or not value:
            kind = "empty" if isinstance(value, list | tuple) else describe_kind(value)
            raise DataError(f"{name} is {kind}, not a list of messages")
        messages = tuple(self._message(item) for item in value)
        self._check_turns([message["role"] for message in messages])
        return Conversation(messages)

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score last answers: ROUGE-L as F1 in 0..1 (stemmer on), BLEU and chrF in 0..100."""
        return {
            **rouge(predictions, references, types=("rougeL",)),
            **bleu_and_chrf(predictions, references),
        }

    def notes_on(self, references: Sequence[str]) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(), sacrebleu_note("bleu", "chrf", references=references))

    def _message(self, item: object) -> dict[str, str]:
        name, config = self.config.messages, self.config
        if not isinstance(item, Mapping):
            raise DataError(f"{name} holds {describe_kind(item)} where a message should be")
        role, content = item.get(config.role), item.get(config.content)
        if not isinstance(role, str):
            raise DataError(f"{name} has a message without {config.role!r}")
        role = config.roles.get(role, role)
        if role not in ROLES:
            raise DataError(f"{name} has the role {role!r}; known are {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise DataError(f"{name} has a message of {role} whose {config.content} is no text")
        if not content.strip():
            raise DataError(f"{name} has an empty message of {role}")
        return {"role": role, "content": content}

    def _check_turns(self, roles: Sequence[str]) -> None:
        name = self.config.messages
        turns = roles[1:] if roles[0] == "system" else roles
        if "assistant" not in turns:
            raise DataError(f"{name} has no assistant's turn")
        if "system" in turns:
            raise DataError(f"{name} has a system message after the first")
        expected = ["user", "assistant"] * (len(turns) // 2 + 1)
        if list(turns) != expected[: len(turns)]:
            raise DataError(f"{name} does not alternate between user and assistant")
        if turns[-1] != "assistant":
            raise DataError(f"{name} ends with a user's turn")
