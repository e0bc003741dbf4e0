"""Learn from answers that were each called good or bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import Example, Question, Task, Verdict
from peftkit.sources.columns import describe_kind
from peftkit.tasks.metrics import rouge, rouge_note
from peftkit.tasks.preference import with_system
from peftkit.tasks.turns import Turns, read_turns


@dataclass(frozen=True)
class FeedbackConfig:
    """Say which columns hold what; prompt and completion hold a text, or a list of messages."""

    prompt: str = "prompt"
    """Column of what the model is asked."""
    completion: str = "completion"
    """Column of the answer that was given."""
    label: str = "label"
    """Column of true, where the answer is a good one, or false."""
    system: str | None = None
    """System message before every prompt that has none; absent, there is none."""


class Feedback(Task):
    """Turn a prompt, an answer and a verdict into an example."""

    Config: ClassVar[type | str] = FeedbackConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Verdict,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        return (self.config.prompt, self.config.completion, self.config.label)

    def example(self, row: Mapping[str, Any]) -> Verdict:
        """Make one example of one row.

        Raises:
            DataError: a text is missing, null or empty, or the label is not true or false.
        """
        completion = read_turns(row, self.config.completion, role="assistant")
        return Verdict(self._prompt(row), completion, self._verdict(row))

    def question(self, row: Mapping[str, Any]) -> Question:
        """Ask the prompt; answer and label may be missing."""
        return Question(messages=self._prompt(row))

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score generated answers against those that were called good: ROUGE-L as F1 in 0..1."""
        return rouge(predictions, references, types=("rougeL",))

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(),)

    def _prompt(self, row: Mapping[str, Any]) -> Turns:
        return with_system(read_turns(row, self.config.prompt, role="user"), self.config.system)

    def _verdict(self, row: Mapping[str, Any]) -> bool:
        name = self.config.label
        value = row.get(name)
        if not isinstance(value, bool):
            raise DataError(f"{name} is {describe_kind(value)}, not true or false")
        return value
