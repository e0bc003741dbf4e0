"""Prefer one answer to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.plugins import Example, Preference, Question, Task
from peftkit.tasks.metrics import rouge, rouge_note
from peftkit.tasks.turns import Turns, read_turns, split_shared


@dataclass(frozen=True)
class PreferenceConfig:
    """Say which columns hold what; each holds a text, or a list of messages."""

    prompt: str | None = "prompt"
    """Column of what the model is asked; null where it is what both answers begin with."""
    chosen: str = "chosen"
    """Column of the answer that is preferred."""
    rejected: str = "rejected"
    """Column of the answer that is not."""
    system: str | None = None
    """System message before every prompt that has none; absent, there is none."""


class PreferenceTask(Task):
    """Turn a prompt and two answers into an example of which one is preferred."""

    Config: ClassVar[type | str] = PreferenceConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Preference,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.prompt, self.config.chosen, self.config.rejected)
        return tuple(column for column in named if column)

    def example(self, row: Mapping[str, Any]) -> Preference:
        """Make one example of one row.

        Raises:
            DataError: a column is missing, null, empty, or neither text nor messages; or without a
                column of prompts, the answers share none.
        """
        config: PreferenceConfig = self.config
        answers = [
            read_turns(row, column, role="assistant") for column in (config.chosen, config.rejected)
        ]
        if config.prompt:
            prompt, (chosen, rejected) = read_turns(row, config.prompt, role="user"), answers
            # Files that repeat the prompt in both answers have it twice.
            if all(answer[: len(prompt)] == prompt for answer in answers):
                chosen, rejected = (answer[len(prompt) :] for answer in answers)
        else:
            prompt, (chosen, rejected) = split_shared(*answers)
        return Preference(with_system(prompt, config.system), chosen, rejected)

    def question(self, row: Mapping[str, Any]) -> Question:
        """Ask the prompt; the answers may be missing."""
        config: PreferenceConfig = self.config
        if not config.prompt:
            return super().question(row)
        prompt = read_turns(row, config.prompt, role="user")
        return Question(messages=with_system(prompt, config.system))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score generated answers against the preferred ones: ROUGE-L as F1 in 0..1."""
        return rouge(predictions, references, types=("rougeL",))

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(),)


def with_system(prompt: Turns, system: str | None) -> Turns:
    """Put a system message before a prompt that has none."""
    if not system or prompt[0]["role"] == "system":
        return prompt
    return ({"role": "system", "content": system}, *prompt)
