"""Name the label of many texts with a classifier, and score it by its labels.

Texts are read in batches, and their labels do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import DataError
from peftkit.plugins.evaluation import Answerer, Asking, Contestant, Evaluator, Reply, Scoring
from peftkit.plugins.examples import Labeled
from peftkit.plugins.native import trains_head
from peftkit.scoring.by_label import LabelScores, label_notes, score_by_label
from peftkit.scoring.head_logits import one_each, read_heads

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Question

    Model: TypeAlias = PreTrainedModel | PeftModel


COLUMNS = ("predicted", "probabilities")
"""Keys that hold the label, and how likely each is, in a file of answers."""


@dataclass(frozen=True)
class Prediction:
    """Hold how likely a text has each label."""

    probabilities: Mapping[str, float]
    """Label -> its probability, the likeliest first; they add up to 1."""

    @property
    def label(self) -> str:
        """Return the likeliest label."""
        return next(iter(self.probabilities))


def classify(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Predict the labels of encoded rows, in their order; rows of like length share a batch.

    Raises:
        ResourceError: even one row does not fit into device memory.
    """
    import torch

    names: Mapping[int, str] = model.config.id2label
    heads = read_heads(model, tokenizer, rows, batch_size=batch_size, progress=progress)
    shares = (torch.tensor(row).softmax(dim=-1).tolist() for row in heads)
    ranked = (sorted(enumerate(row), key=lambda pair: (-pair[1], pair[0])) for row in shares)
    return [Prediction({names[number]: share for number, share in row}) for row in ranked]


class LabelEvaluator(Evaluator):
    """Let one model after the other name the labels of the same rows."""

    def __init__(self, scoring: Scoring) -> None:
        """Prepare the rows.

        Raises:
            DataError: a row has a label that the model does not know.
        """
        super().__init__(scoring)
        names = list(scoring.model.config.id2label.values())
        labels = [example.class_label for example in scoring.examples]
        unknown = next((label for label in labels if label not in names), names)
        if unknown is not names:
            raise DataError(
                f"a row has the label {unknown!r}, which the model does not know;"
                f" it knows {', '.join(map(repr, names))}"
            )
        self.references = [example.reference for example in scoring.examples]
        self.scores_base = not trains_head(scoring.model)
        if not self.scores_base:
            self.notes = ("The base has no scores: its classification head is new and untrained.",)
        self._rows = one_each(scoring.rows)

    def take(self, model: Model, name: str) -> Contestant:
        """Let a model name every row's label."""
        scoring = self.scoring
        predictions = classify(
            model,
            scoring.tokenizer,
            self._rows,
            batch_size=scoring.batch_size,
            progress=scoring.say(f"{name} reads"),
        )
        labels = tuple(prediction.label for prediction in predictions)
        return Contestant(
            metrics={**scoring.task.score(labels, self.references)},
            texts=labels,
            probabilities=tuple(one.probabilities[one.label] for one in predictions),
            by_label=self._by_label(labels).to_json(),
        )

    def notes_on(self, name: str, one: Contestant) -> Sequence[str]:
        """Say where every row is given the same label, and which labels no row has."""
        return list(label_notes(name, self._by_label(one.texts)))

    def _by_label(self, labels: Sequence[str]) -> LabelScores:
        known = tuple(self.scoring.model.config.id2label.values())
        return score_by_label(labels, self.references, known)


class LabelAnswerer(Answerer):
    """Name labels with a classifier."""

    columns = COLUMNS
    no_conversation = "a classifier names the label of one text"

    def __init__(self, asking: Asking) -> None:
        """Load the classifier.

        Raises:
            UsageError: there are options to generate.
        """
        asking.refuse_options("a classifier")
        super().__init__(asking)
        self._encode, self._excess = asking.encode, asking.excess

    def excess(self, question: Question) -> int:
        """Return by how many tokens a text is longer than those of training."""
        return self._excess(Labeled(question.texts, ""))

    def label_many(self, questions: Sequence[Question]) -> list[Prediction]:
        """Name the label of several texts in batches, in their order."""
        rows = one_each(self._encode([Labeled(question.texts, "") for question in questions]))
        return classify(self.model, self.tokenizer, rows, batch_size=self.batch_size)

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Name a text's label, and write how likely each label is."""
        del seed
        (found,) = self.label_many([question])
        width = max(map(len, found.probabilities))
        table = (f"{label:<{width}}  {share:.3f}" for label, share in found.probabilities.items())
        write("\n".join(table))
        return Reply(found.label, values=_values(found))

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Name the label of several texts in batches, in their order."""
        for found in self.label_many(questions):
            yield _values(found)


def _values(found: Prediction) -> dict[str, Any]:
    return dict(zip(COLUMNS, (found.label, found.probabilities), strict=True))
