"""What scores a trained model: an evaluator that puts the same questions to one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins.examples import Example
    from peftkit.plugins.method import Method
    from peftkit.plugins.parts import Task

    Model: TypeAlias = PreTrainedModel | PeftModel

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the rows done and their total."""


@dataclass(frozen=True)
class Contestant:
    """Hold one model's part of an evaluation."""

    metrics: dict[str, float | None]
    texts: tuple[str, ...] = ()
    """Answers in the rows' order; empty when nothing is answered."""
    num_unfinished: int = 0
    """Answers that reached the limit of new tokens without an end."""
    probabilities: tuple[float, ...] = ()
    """Of each answer, where it is a label."""


@dataclass(frozen=True)
class Scoring:
    """Hold what an evaluation is made of."""

    task: Task
    method: Method
    model: Model
    """The trained one, by whose limits and stop tokens all contestants answer."""
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    batch_size: int
    generation: Mapping[str, Any]
    """Native options of `transformers.GenerationConfig` that the recipe states."""
    progress: Progress | None = None

    def say(self, what: str) -> Callable[[int, int], None] | None:
        """Return what reports the progress of one stretch of work."""
        report = self.progress
        return (lambda done, total: report(what, done, total)) if report else None


class Evaluator(ABC):
    """Put the same questions to one model after the other."""

    headline: str = ""
    """The metric that a one-line summary shows."""
    references: Sequence[str] = ()
    """What answers are scored against, in the rows' order; empty where nothing is answered."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should read beside the scores."""
    options: Mapping[str, Any] = {}
    """Native generation options in force."""
    num_cut: int = 0
    """Prompts that lost the end of their last message, to leave room for an answer."""
    scores_base: ClassVar[bool] = True
    """Whether the base can be asked too; not where its head is new."""

    @abstractmethod
    def take(self, model: Model, name: str) -> Contestant:
        """Let one model do all of it.

        Args:
            name: `base` or `tuned`, for progress.
        """

    def row_scores(self, one: Contestant) -> list[float]:
        """Return the headline score of each row; empty where rows have none of their own."""
        del one
        return []


@dataclass(frozen=True)
class Question:
    """Hold what a model is given before its answer."""

    messages: tuple[Mapping[str, str], ...] = ()
    """Chat messages up to the answer; empty where a text is continued or labelled instead."""
    text: str = ""
    """Running text that the model goes on writing."""
    texts: tuple[str, ...] = ()
    """A text, or two that belong together, whose label is asked for."""


@dataclass(frozen=True)
class Reply:
    """Hold one answer."""

    text: str
    notes: tuple[str, ...] = ()
    """What the text does not show: that it, or the prompt, was cut."""
    values: Mapping[str, Any] | None = None
    """What `--json` shows of it; the text alone when None."""


@dataclass(frozen=True)
class Asking:
    """Hold what an answerer is made of."""

    task: Task
    method: Method
    model: Model
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    generation: Mapping[str, Any]
    """Native options of `transformers.GenerationConfig` that recipe and command line state."""
    is_base: bool = False
    """Whether `model` is the base, as it was before training."""


class Answerer(ABC):
    """Answer questions with a loaded model."""

    batch_size: int
    columns: ClassVar[tuple[str, ...]]
    """Keys that hold an answer in a file of answers."""
    holds_conversations: bool = False
    """Whether a later prompt may see the earlier ones."""

    @abstractmethod
    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Answer one question, writing the answer piece by piece."""

    @abstractmethod
    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Answer several questions in batches, in their order: `columns` -> values."""

    def fits(self, messages: Sequence[Mapping[str, str]]) -> bool:
        """Tell whether a conversation leaves room for an answer."""
        del messages
        return True
