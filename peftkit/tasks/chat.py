"""Learn from conversations, of one turn or of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Example, Task
from peftkit.sources.messages import Words, read_messages, read_tools
from peftkit.tasks.metrics import bleu_and_chrf, rouge, rouge_note, sacrebleu_note


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
    """The file's word for a role -> ours; ShareGPT's `human` and `gpt` are known."""
    tools: str = "tools"
    """Column of the functions that the assistant may call, where rows have one."""
    ignore: list[str] = field(default_factory=list)
    """Keys of a message that are left out; others must be rendered by the chat template."""


class Chat(Task):
    """Take a list of messages as it is; which turns are trained is `data.dialogue.train`."""

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
        config: ChatConfig = self.config
        words = Words(config.role, config.content, config.roles, config.ignore)
        messages = read_messages(row.get(config.messages), config.messages, words)
        self._check_turns([message["role"] for message in messages])
        return Conversation(messages, read_tools(row.get(config.tools), config.tools))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score last answers: ROUGE-L as F1 in 0..1 (stemmer on), BLEU and chrF in 0..100."""
        return {
            **rouge(predictions, references, types=("rougeL",)),
            **bleu_and_chrf(predictions, references),
        }

    def notes_on(self, references: Sequence[str]) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(), sacrebleu_note("bleu", "chrf", references=references))

    def _check_turns(self, roles: Sequence[str]) -> None:
        name = self.config.messages
        turns = list(roles)
        while turns and turns[0] in ("system", "developer"):
            del turns[0]
        if "assistant" not in turns:
            raise DataError(f"{name} has no assistant's turn")
        if {"system", "developer"} & set(turns):
            raise DataError(f"{name} has a system message after the first")
        asked = [turn for turn in turns if turn != "tool"]
        has_lost = any(
            turn == "tool" and before not in ("assistant", "tool")
            for before, turn in zip(["", *turns], turns, strict=False)
        )
        if has_lost:
            raise DataError(f"{name} has a tool's message that follows no call")
        alternates = all(
            one != other or (one == "assistant" and "tool" in turns)
            for one, other in pairwise(asked)
        )
        if asked[0] != "user" or not alternates:
            raise DataError(f"{name} does not alternate between user and assistant")
        if turns[-1] != "assistant":
            raise DataError(f"{name} ends with a {turns[-1]}'s turn")
