"""What `samples.jsonl` keeps of every scored row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftkit.plugins.evaluation import Contestant
from peftkit.plugins.examples import Example


def make_samples(
    examples: Sequence[Example],
    contestants: Mapping[str, Contestant],
    row_scores: Mapping[str, Sequence[float]],
) -> tuple[dict[str, Any], ...]:
    """Put question, reference and answers of every row side by side; nothing where none answers.

    Args:
        row_scores: contestant -> each answer's headline score; empty where rows have none.
    """
    questions = [example.sample() for example in examples]
    tuned = contestants["tuned"]
    if not tuned.texts or not all(questions):
        return ()
    return tuple(
        {
            **question,
            "reference": example.reference,
            **{name: one.texts[index] for name, one in contestants.items()},
            **({"probability": tuned.probabilities[index]} if tuned.probabilities else {}),
            "scores": {name: values[index] for name, values in row_scores.items() if values},
        }
        for index, (example, question) in enumerate(zip(examples, questions, strict=True))
    )
