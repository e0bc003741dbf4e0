"""Translate a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.plugins import Conversation, Example, Task
from peftkit.sources.columns import read_text
from peftkit.tasks.metrics import bleu_and_chrf, sacrebleu_note, ter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TranslateConfig:
    """Say which columns hold what, and how the model is asked."""

    source: str = "source"
    """Column of the text to translate; `translation.en` reaches into a nested column."""
    target: str = "target"
    """Column of its translation."""
    source_language: str | None = None
    """Language of the source as the prompt names it, e.g. `English`."""
    target_language: str | None = None
    """Language of the target as the prompt names it, e.g. `German`."""
    target_language_column: str | None = None
    """Column that names each row's own target language, where rows have several."""
    src_lang: str | None = None
    """Code of the source's language, where the tokenizer has codes: `deu_Latn` for NLLB."""
    tgt_lang: str | None = None
    """Code of the target's language, which answers are forced to begin with."""
    instruction: str | None = None
    """What stands above the text instead of a sentence made from the languages; may be empty."""


class Translate(Task):
    """Turn source and target into one question and its answer."""

    Config: ClassVar[type | str] = TranslateConfig
    headline: ClassVar[str] = "chrf"
    makes: ClassVar[tuple[type[Example], ...]] = (Conversation,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        named = (self.config.source, self.config.target, self.config.target_language_column)
        return tuple(column for column in named if column)

    def instruction(self, row: Mapping[str, Any]) -> str:
        """Return the sentence above a row's text."""
        config: TranslateConfig = self.config
        if config.instruction is not None:
            return config.instruction
        column = config.target_language_column
        target_language = read_text(row, column) if column else config.target_language
        origin = f" from {config.source_language}" if config.source_language else ""
        goal = f" to {target_language}" if target_language else ""
        return f"Translate{origin}{goal}." if origin or goal else "Translate the text."

    def example(self, row: Mapping[str, Any]) -> Conversation:
        """Make one example of one row.

        Raises:
            DataError: source or target is null, empty or no text.
        """
        source = read_text(row, self.config.source)
        target = read_text(row, self.config.target).strip()
        prompt = "\n\n".join(part for part in (self.instruction(row), source) if part)
        return Conversation(
            ({"role": "user", "content": prompt}, {"role": "assistant", "content": target})
        )

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Set the two languages of a tokenizer that writes their codes.

        Raises:
            UsageError: it has no codes, or not these, or has some and none is named.
        """
        from peftkit.tasks.languages import set_languages

        set_languages(
            tokenizer,
            src_lang=self.config.src_lang,
            tgt_lang=self.config.tgt_lang,
            where="translate",
        )

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score translations: BLEU, chrF and TER (lower is better), by sacrebleu's defaults.

        `peftkit.tasks.metrics.signatures` gives the signatures to quote beside the numbers.
        """
        return {**bleu_and_chrf(predictions, references), **ter(predictions, references)}

    def notes_on(self, references: Sequence[str]) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (sacrebleu_note("bleu", "chrf", "ter", references=references),)

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Answer with the source, untranslated."""
        return {"copy": [read_text(row, self.config.source).strip() for row in rows]}
