"""Complete a prompt: any input and the output wanted for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Example, Task
from peftkit.sources.columns import describe_kind, read_text
from peftkit.tasks.metrics import exact_match, rouge, rouge_note, token_f1


@dataclass(frozen=True)
class PromptCompletionConfig:
    """Say which columns hold what."""

    prompt: str = "prompt"
    """Column of what the model is asked."""
    completion: str = "completion"
    """Column of what it should answer."""
    context: str | None = None
    """Column of further input, put below the prompt where it is not empty."""
    system: str | None = None
    """System message before every prompt; absent, there is none."""


class PromptCompletion(Task):
    """Turn prompt and completion into one question and its answer."""

    Config: ClassVar[type | str] = PromptCompletionConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Conversation,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.prompt, self.config.completion, self.config.context)
        return tuple(column for column in named if column)

    @property
    def document(self) -> str | None:
        """Name the further input; a prompt alone holds its instruction."""
        config: PromptCompletionConfig = self.config
        return config.context

    def example(self, row: Mapping[str, Any]) -> Conversation:
        """Make one example of one row.

        Raises:
            DataError: prompt or completion is null, empty or no text.
        """
        prompt = read_text(row, self.config.prompt)
        completion = read_text(row, self.config.completion)
        context = self._context(row)
        system = ({"role": "system", "content": self.config.system},) if self.config.system else ()
        return Conversation(
            (
                *system,
                {"role": "user", "content": f"{prompt}\n\n{context}" if context else prompt},
                {"role": "assistant", "content": completion},
            )
        )

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score completions in 0..1: exact match, ROUGE-L and word F1.

        Exact match ignores only outer whitespace; ROUGE-L is the `rouge-score` package's with
        the stemmer on; word F1 splits at whitespace and lower-cases.
        """
        return {
            **exact_match(predictions, references),
            **rouge(predictions, references, types=("rougeL",)),
            **token_f1(predictions, references),
        }

    def metric_notes(self) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(),)

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Give none: no trivial answer fits every kind of prompt."""
        del rows
        return {}

    def _context(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.config.context) if self.config.context else None
        if value is not None and not isinstance(value, str):
            raise DataError(f"{self.config.context} is not text but {describe_kind(value)}")
        return value if value and value.strip() else ""
