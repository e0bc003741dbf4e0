"""Predict a number of many texts with a model that has one output, and score it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import UsageError
from peftkit.plugins.evaluation import Answerer, Asking, Contestant, Evaluator, Reply, Scoring
from peftkit.plugins.examples import Rated, show_number
from peftkit.plugins.native import trains_head
from peftkit.scoring.head_logits import one_each, read_heads

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Question

    Model: TypeAlias = PreTrainedModel | PeftModel

COLUMNS = ("predicted",)
"""The key that holds the number in a file of answers."""


def regress(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Predict the numbers of encoded rows, in their order.

    Raises:
        UsageError: the model says several numbers.
        ResourceError: even one row does not fit into device memory.
    """
    if model.config.num_labels != 1:
        raise UsageError(
            f"the model says {model.config.num_labels} numbers of a text, where one is predicted",
            hint="name a base that was trained on one, or one without a head",
        )
    heads = read_heads(model, tokenizer, rows, batch_size=batch_size, progress=progress)
    return [number for (number,) in heads]


class NumberEvaluator(Evaluator):
    """Let one model after the other predict the numbers of the same rows."""

    def __init__(self, scoring: Scoring) -> None:
        super().__init__(scoring)
        self.references = [example.reference for example in scoring.examples]
        self.scores_base = not trains_head(scoring.model)
        if not self.scores_base:
            self.notes = ("The base has no scores: its head is new and untrained.",)
        self._rows = one_each(scoring.rows)

    def take(self, model: Model, name: str) -> Contestant:
        """Let a model predict every row's number."""
        scoring = self.scoring
        found = regress(
            model,
            scoring.tokenizer,
            self._rows,
            batch_size=scoring.batch_size,
            progress=scoring.say(f"{name} reads"),
        )
        texts = tuple(map(show_number, found))
        return Contestant(metrics={**scoring.task.score(texts, self.references)}, texts=texts)

    def row_scores(self, one: Contestant) -> list[float]:
        """Return nothing: one row alone has no correlation."""
        del one
        return []


class NumberAnswerer(Answerer):
    """Predict numbers."""

    columns = COLUMNS
    no_conversation = "a regression predicts the number of one text"

    def __init__(self, asking: Asking) -> None:
        """Load the model.

        Raises:
            UsageError: there are options to generate.
        """
        asking.refuse_options("a regression")
        super().__init__(asking)
        self._encode, self._excess = asking.encode, asking.excess

    def excess(self, question: Question) -> int:
        """Return by how many tokens a text is longer than those of training."""
        return self._excess(Rated(question.texts, 0.0))

    def predict_many(self, questions: Sequence[Question]) -> list[float]:
        """Predict the numbers of several texts in batches, in their order."""
        rows = one_each(self._encode([Rated(question.texts, 0.0) for question in questions]))
        return regress(self.model, self.tokenizer, rows, batch_size=self.batch_size)

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Predict a text's number, and write it."""
        del seed
        (found,) = self.predict_many([question])
        write(show_number(found))
        return Reply(show_number(found), values={"predicted": found})

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Predict the numbers of several texts in batches, in their order."""
        for found in self.predict_many(questions):
            yield {"predicted": found}
