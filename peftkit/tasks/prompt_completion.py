"""Complete a prompt: any input and the output wanted for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.errors import DataError
from peftkit.plugins import Conversation, Example, Task
from peftkit.plugins.formats import is_format, read_format
from peftkit.sources.columns import describe_kind, read_text
from peftkit.sources.formats import check_format, columns_of, fill
from peftkit.tasks.metrics import exact_match, rouge, rouge_note, token_f1


@dataclass(frozen=True)
class PromptCompletionConfig:
    """Say which columns hold what."""

    prompt: str = "prompt"
    """Column of what the model is asked; or a text with columns in braces, of which a part
    `{#input} ... {/input}` vanishes where that column is empty, and `{{` is a brace."""
    completion: str = "completion"
    """Column of what it should answer, or a text with columns in braces."""
    context: str | None = None
    """Column of further input, put below the prompt where it is not empty."""
    system: str | None = None
    """System message before every prompt; absent, there is none."""


class PromptCompletion(Task):
    """Turn prompt and completion into one question and its answer."""

    Config: ClassVar[type | str] = PromptCompletionConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Conversation,)

    def __init__(self, config: PromptCompletionConfig) -> None:
        super().__init__(config)
        for name in ("prompt", "completion"):
            check_format(name, getattr(config, name))

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.prompt, self.config.completion, self.config.context)
        columns = (column for text in named if text for column in columns_of(text))
        return tuple(dict.fromkeys(columns))

    @property
    def optional(self) -> Sequence[str]:
        """Name the columns that a question does without: the context, and those of such parts."""
        prompt = self.config.prompt
        inside = read_format(prompt).optional if is_format(prompt) else ()
        return (*inside, *([self.config.context] if self.config.context else []))

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
        prompt = self._read(row, self.config.prompt)
        completion = self._read(row, self.config.completion)
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

    @staticmethod
    def _read(row: Mapping[str, Any], text: str) -> str:
        return fill(read_format(text), row) if is_format(text) else read_text(row, text)

    def _context(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.config.context) if self.config.context else None
        if value is not None and not isinstance(value, str):
            raise DataError(f"{self.config.context} is not text but {describe_kind(value)}")
        return value if value and value.strip() else ""
