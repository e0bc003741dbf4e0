"""Summarise a document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from peftkit.plugins import Conversation, Example, Task
from peftkit.sources.columns import read_text
from peftkit.tasks.metrics import bleu_and_chrf, rouge, rouge_note, sacrebleu_note
from peftkit.tasks.words import split_unspaced


@dataclass(frozen=True)
class SummarizeConfig:
    """Say which columns hold what, and how the model is asked."""

    document: str = "document"
    """Column of the text to summarise."""
    summary: str = "summary"
    """Column of its summary."""
    instruction: str = "Summarize the text."
    """What stands above the document in the prompt; empty for the document alone."""


class Summarize(Task):
    """Turn document and summary into one question and its answer."""

    Config: ClassVar[type | str] = SummarizeConfig
    headline: ClassVar[str] = "rougeL"
    makes: ClassVar[tuple[type[Example], ...]] = (Conversation,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""
        return (self.config.document, self.config.summary)

    @property
    def document(self) -> str:
        """Name the column that may be shortened."""
        config: SummarizeConfig = self.config
        return config.document

    def example(self, row: Mapping[str, Any]) -> Conversation:
        """Make one example of one row.

        Raises:
            DataError: document or summary is null, empty or no text.
        """
        document = read_text(row, self.config.document)
        summary = read_text(row, self.config.summary).strip()
        prompt = "\n\n".join(part for part in (self.config.instruction, document) if part)
        return Conversation(
            (
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": summary},
            )
        )

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score summaries: ROUGE-1/2/L/Lsum as F1 in 0..1, BLEU and chrF in 0..100.

        ROUGE is the `rouge-score` package's, with the stemmer on and sentences split at newlines;
        BLEU and chrF are sacrebleu's defaults.
        """
        return {**rouge(predictions, references), **bleu_and_chrf(predictions, references)}

    def notes_on(self, references: Sequence[str]) -> tuple[str, ...]:
        """Say how the scores are computed."""
        return (rouge_note(), sacrebleu_note("bleu", "chrf", references=references))

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Answer with the document's first sentence."""
        documents = [read_text(row, self.config.document) for row in rows]
        return {"first_sentence": [first_sentence(document) for document in documents]}


_SENTENCE = re.compile(r".+?(?:[.!?؟।][\"')\]»]*(?=\s|$)|[。！？][”’」』）]*)", re.DOTALL)  # noqa: RUF001
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|Dr|Mr|Mrs|No|Fig|Eq)|\d)\.$")
_SIGNATURE = re.compile(r"\w+(?:\.\w+)+:?|[\w.]+\(.*\)?(?:\s*->.*)?:?")
_UNDERLINE = re.compile(r"[-=~^*#\"]{3,}")
_HEADING = re.compile(
    r"(?:args|arguments|attributes|examples?|keyword args|notes?|other parameters|parameters|params"
    r"|raises|references|returns?|see also|usage|warnings?|yields):?",
    re.IGNORECASE,
)
_CODE = (">>>", ":", "@", "..", "```", "|")


def first_sentence(document: str) -> str:
    """Return the first sentence of a document's prose, as a reader would pick it.

    The baseline must not be a straw man, so: lines at the head that are only a dotted name or a
    call signature are passed over; a sentence ends in `.`, `!` or `?` before whitespace (and in
    their Chinese, Hindi and Arabic kin), not
    inside `numpy.mean`, after `e.g.` or after a list's number; paragraphs of code or under a
    section's heading (`Parameters`, `Args:`) give way to the first paragraph of prose, and lend
    their first sentence, without the heading, where there is no prose. Without any sentence the
    first paragraph stands in whole. Whitespace is collapsed.
    """
    found = [_drop_signature(part) for part in re.split(r"\n[ \t]*\n", document.strip())]
    paragraphs = [paragraph for paragraph in found if paragraph]
    prose = [paragraph for paragraph in paragraphs if _is_prose(paragraph)]
    for paragraph in (*prose, *map(_drop_heading, paragraphs)):
        sentence = _leading_sentence(paragraph)
        if sentence:
            return sentence
    return " ".join((prose or paragraphs or [document])[0].split())


def _drop_signature(paragraph: str) -> str:
    lines = paragraph.strip().splitlines()
    while lines and _SIGNATURE.fullmatch(lines[0].strip()):
        lines.pop(0)
    return "\n".join(lines)


def _is_prose(paragraph: str) -> bool:
    return paragraph == _drop_heading(paragraph) and not paragraph.lstrip().startswith(_CODE)


def _drop_heading(paragraph: str) -> str:
    first, *rest = paragraph.splitlines()
    if rest and _UNDERLINE.fullmatch(rest[0].strip()):
        return "\n".join(rest[1:])
    return "\n".join(rest) if rest and _HEADING.fullmatch(first.strip()) else paragraph


def _leading_sentence(paragraph: str) -> str:
    """Return the first span of two words or more that ends like a sentence; empty if none."""
    text = " ".join(paragraph.split())
    start = 0
    while match := _SENTENCE.match(text, start):
        sentence = text[: match.end()]
        if len(split_unspaced(sentence)) > 1 and not _ABBREVIATION.search(sentence):
            return sentence
        start = match.end()
    return ""
