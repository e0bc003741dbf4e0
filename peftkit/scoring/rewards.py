"""Score answers with a reward model, and a reward model by which of two answers it prefers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from peftkit.errors import UsageError
from peftkit.plugins.evaluation import Answerer, Asking, Contestant, Evaluator, Reply, Scoring
from peftkit.plugins.native import trains_head
from peftkit.scoring.reading import longest_first

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins import Question

    Model: TypeAlias = PreTrainedModel | PeftModel
    Encode: TypeAlias = Callable[[Sequence[Sequence[Mapping[str, str]]]], list[list[int]]]

SCORE = "score"
"""Key that holds the score in a file of answers."""


def rewards(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Score encoded conversations, in their order; those of like length share a batch.

    Raises:
        ResourceError: even one does not fit into device memory.
    """

    def scores(chosen: Sequence[int]) -> list[float]:
        batch = tokenizer.pad(
            [{"input_ids": list(rows[i])} for i in chosen],
            padding_side="right",
            return_tensors="pt",
        )
        device = model.get_input_embeddings().weight.device
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        values: list[float] = model(**inputs).logits[:, 0].double().tolist()
        return values

    lengths = list(map(len, rows))
    return longest_first(model, lengths, scores, batch_size=batch_size, progress=progress)


@dataclass(frozen=True)
class Rewarded(Contestant):
    """Hold by how much each better answer is scored above the worse one."""

    margins: tuple[float, ...] = ()


class RewardEvaluator(Evaluator):
    """Let each model score both answers of every row."""

    headline = "accuracy"
    notes: Sequence[str] = (
        "Accuracy: the share of rows whose chosen answer has the higher score; margin: by how much,"
        " on average.",
    )

    def __init__(self, scoring: Scoring, pairs: Sequence[tuple[list[int], ...]]) -> None:
        """Take the better and the worse conversation of each row, encoded."""
        super().__init__(scoring)
        self._rows = [ids for pair in pairs for ids in pair]
        self.scores_base = not trains_head(scoring.model)
        if not self.scores_base:
            alone = "The base has no scores: its head is new and untrained."
            self.notes = (*self.notes, alone)

    def take(self, model: Any, name: str) -> Rewarded:
        """Score every row's answers."""
        scoring = self.scoring
        found = rewards(
            model, scoring.tokenizer, self._rows, batch_size=scoring.batch_size,
            progress=scoring.say(f"{name} reads"),
        )  # fmt: skip
        margins = [better - worse for better, worse in zip(found[::2], found[1::2], strict=True)]
        num = len(margins)
        return Rewarded(
            {
                "accuracy": sum(margin > 0 for margin in margins) / num,
                "margin": sum(margins) / num,
            },
            margins=tuple(margins),
        )

    def row_scores(self, one: Contestant) -> list[float]:
        """Return whether each row's chosen answer has the higher score."""
        return [float(margin > 0) for margin in cast("Rewarded", one).margins]


class RewardAnswerer(Answerer):
    """Score answers with a reward model."""

    columns = (SCORE,)
    judges = True
    no_conversation = "a reward model scores answers and gives none"

    def __init__(self, asking: Asking, encode: Encode) -> None:
        """Load the model.

        Raises:
            UsageError: there are options to generate.
        """
        asking.refuse_options("a reward model")
        super().__init__(asking)
        self._encode = encode

    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Score one answer."""
        del seed
        (found,) = self.reply_many([question])
        text = f"{found[SCORE]:.4f}"
        write(text)
        return Reply(text, values=found)

    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Score several answers in batches, in their order."""
        if any(question.messages[-1]["role"] != "assistant" for question in questions):
            raise UsageError(
                "a reward model scores answers, and a prompt alone has none",
                hint="rows with a prompt and a completion: peftkit generate RUN --file ROWS.jsonl",
            )
        rows = self._encode([question.messages for question in questions])
        for score in rewards(self.model, self.tokenizer, rows, batch_size=self.batch_size):
            yield {SCORE: score}
