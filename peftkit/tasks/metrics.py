"""Score answers against references with the implementations that published numbers use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from peftkit.errors import DataError
from peftkit.tasks.words import bleu_tokenizer, rouge_tokenizer, split_unspaced

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    types: Sequence[str] = ROUGE_TYPES,
) -> dict[str, float]:
    """Return mean ROUGE F1, each in 0..1.

    The `rouge-score` package with its Porter stemmer on; rougeLsum takes each line as a sentence
    (split at newlines). Words are its own on the letters a-z and digits, and `words` elsewhere.
    """
    from rouge_score.rouge_scorer import RougeScorer

    check_pairs(predictions, references)
    scorer = RougeScorer(list(types), split_summaries=False, tokenizer=rouge_tokenizer())
    sums = dict.fromkeys(types, 0.0)
    for prediction, reference in zip(predictions, references, strict=True):
        for name, score in scorer.score(reference, prediction).items():
            sums[name] += score.fmeasure
    return {name: total / len(predictions) for name, total in sums.items()}


def bleu_and_chrf(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return corpus BLEU and chrF (chrF2), each in 0..100, with sacrebleu's defaults.

    But for BLEU's tokenizer where the references' script puts no spaces between words.
    """
    from sacrebleu.metrics import BLEU, CHRF

    check_pairs(predictions, references)
    bleu = BLEU(tokenize=bleu_tokenizer(references))
    return {
        "bleu": bleu.corpus_score(list(predictions), [list(references)]).score,
        "chrf": CHRF().corpus_score(list(predictions), [list(references)]).score,
    }


def ter(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the corpus's translation edit rate in percent (lower is better), by sacrebleu."""
    check_pairs(predictions, references)
    return {"ter": _ter(references).corpus_score(list(predictions), [list(references)]).score}


def signatures(references: Sequence[str] = ()) -> dict[str, str]:
    """Return sacrebleu's signature of each of its metrics: what to quote beside a number.

    Args:
        references: whose script chooses the tokenizers.
    """
    from sacrebleu.metrics import BLEU, CHRF

    bleu = BLEU(tokenize=bleu_tokenizer(references))
    found = {}
    for name, metric in {"bleu": bleu, "chrf": CHRF(), "ter": _ter(references)}.items():
        metric.corpus_score(["a"], [["a"]])
        found[name] = str(metric.get_signature())
    return found


def rouge_note() -> str:
    """Say how `rouge` is computed, for whoever quotes its numbers."""
    return (
        f"ROUGE: F1 of rouge-score {metadata.version('rouge-score')}, stemmer on, sentences split"
        " at newlines, words of every script (characters, where it has no spaces)."
    )


def sacrebleu_note(*names: str, references: Sequence[str] = ()) -> str:
    """Say how sacrebleu's metrics are computed: their signatures, e.g. of `bleu` and `chrf`."""
    found = signatures(references)
    quoted = ", ".join(f"{name} {found[name]}" for name in names)
    return f"By sacrebleu: {quoted}."


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the share of answers equal to their reference but for outer whitespace."""
    check_pairs(predictions, references)
    pairs = zip(predictions, references, strict=True)
    hits = sum(prediction.strip() == reference.strip() for prediction, reference in pairs)
    return {"exact_match": hits / len(predictions)}


def token_f1(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the mean F1 of the words that answer and reference share, in 0..1.

    Words are split at whitespace and lower-cased, in scripts without spaces at each character; a
    word counts as often as it stands.
    """
    check_pairs(predictions, references)
    pairs = zip(predictions, references, strict=True)
    scores = [_word_f1(prediction, reference) for prediction, reference in pairs]
    return {"token_f1": sum(scores) / len(scores)}


def check_pairs(predictions: Sequence[str], references: Sequence[str]) -> None:
    """Refuse to score nothing, or lists of different lengths.

    Raises:
        DataError: says how many of each there are.
    """
    if not predictions or len(predictions) != len(references):
        raise DataError(
            f"cannot score {len(predictions)} answers against {len(references)} references",
            hint="score a split that has rows, one answer a row",
        )


def _word_f1(prediction: str, reference: str) -> float:
    ours, theirs = (split_unspaced(text.lower()) for text in (prediction, reference))
    num_shared = sum((Counter(ours) & Counter(theirs)).values())
    if not num_shared:
        return float(ours == theirs)
    return 2 * num_shared / (len(ours) + len(theirs))


def _ter(references: Sequence[str]) -> Any:
    from sacrebleu.metrics import TER

    if bleu_tokenizer(references) == "13a":
        return TER()
    return TER(normalized=True, asian_support=True)
