"""What `samples.jsonl` keeps of every scored row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftkit.plugins.examples import Conversation, Example, Labeled, Text
from peftkit.scoring.evaluator import Contestant


def make_samples(
    examples: Sequence[Example],
    contestants: Mapping[str, Contestant],
    row_scores: Mapping[str, list[float]],
) -> tuple[dict[str, Any], ...]:
    """Put question, reference and answers of every row side by side; nothing for running text.

    Args:
        row_scores: contestant -> each answer's headline score.
    """
    samples = []
    for index, example in enumerate(examples):
        if isinstance(example, Text):
            return ()
        chances = contestants["tuned"].probabilities
        samples.append(
            {
                **_question(example),
                "reference": example.reference,
                **{name: one.texts[index] for name, one in contestants.items()},
                **({"probability": chances[index]} if chances else {}),
                "scores": {name: values[index] for name, values in row_scores.items()},
            }
        )
    return tuple(samples)


def _question(example: Conversation | Labeled) -> dict[str, Any]:
    """Return what was asked: a text where it is one, else the messages; a pair also apart."""
    if isinstance(example, Labeled):
        texts = {"texts": list(example.texts)} if len(example.texts) > 1 else {}
        return {"prompt": "\n\n".join(example.texts), **texts}
    prompt = [dict(message) for message in example.prompt]
    is_plain = len(prompt) == 1 and prompt[0]["role"] == "user"
    return {"prompt": prompt[0]["content"] if is_plain else prompt}
