"""Name the label of many texts with a classifier, in batches, the same whatever their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from peftkit.errors import ResourceError
from peftkit.plugins.examples import Labeled
from peftkit.plugins.native import accepted_inputs
from peftkit.plugins.rows import LENGTH
from peftkit.scoring.evaluator import Contestant, Progress
from peftkit.scoring.generation import evaluating
from peftkit.system.exhaustion import in_batches

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Task

    Model: TypeAlias = PreTrainedModel | PeftModel


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

    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    names: Mapping[int, str] = model.config.id2label
    found: dict[int, Prediction] = {}

    def shares(chosen: Sequence[int]) -> list[list[float]]:
        return _probabilities(model, tokenizer, [rows[i] for i in chosen])

    def refusal(index: int) -> ResourceError:
        return ResourceError(
            f"a row of {len(rows[index]['input_ids'])} tokens does not fit into device memory",
            hint="a smaller max_length",
        )

    with evaluating(model), torch.no_grad():
        for batch in in_batches(order, batch_size, shares, refusal):
            for index, row in batch:
                ranked = sorted(enumerate(row), key=lambda pair: (-pair[1], pair[0]))
                found[index] = Prediction({names[number]: share for number, share in ranked})
            if progress:
                progress(len(found), len(order))
    return [found[index] for index in range(len(rows))]


def _probabilities(
    model: Model, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> list[list[float]]:
    taken = accepted_inputs(model)
    columns = [{k: v for k, v in row.items() if k in taken and k != "labels"} for row in rows]
    batch = tokenizer.pad(columns, return_tensors="pt")
    device = model.get_input_embeddings().weight.device
    logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits
    shares: list[list[float]] = logits.float().softmax(dim=-1).tolist()
    return shares


class LabelExam:
    """Let one model after the other name the labels of the same rows."""

    def __init__(  # noqa: PLR0913 - as `peftkit.scoring.evaluator.Exam`
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Labeled],
        rows: Sequence[Mapping[str, Any]],
        *,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        """Prepare an exam.

        Args:
            rows: the examples, encoded.
        """
        self._task, self._tokenizer, self._rows = task, tokenizer, rows
        self._batch_size, self._progress = batch_size, progress
        self.references = [example.reference for example in examples]
        self.prompts = None
        self.options: dict[str, Any] = {}
        self.notes = ("The base has no scores: its classification head is new and untrained.",)

    def take(self, model: Model, name: str) -> Contestant:
        """Let a model name every row's label."""
        progress = self._progress
        predictions = classify(
            model,
            self._tokenizer,
            self._rows,
            batch_size=self._batch_size,
            progress=(lambda *at: progress(f"{name} reads", *at)) if progress else None,
        )
        labels = tuple(prediction.label for prediction in predictions)
        return Contestant(
            metrics={**self._task.score(labels, self.references)},
            texts=labels,
            num_unfinished=0,
            probabilities=tuple(one.probabilities[one.label] for one in predictions),
        )


def encoded_rows(
    method: Any, examples: Sequence[Labeled], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Encode examples for a classifier, as its training did."""
    rows = method.encode_many(examples, tokenizer)
    return [{key: value for key, value in row.items() if key != LENGTH} for row in rows]
