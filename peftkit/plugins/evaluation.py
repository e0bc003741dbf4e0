"""What scores a trained model, and what answers prompts with it.

An evaluator puts the same questions to one model after the other: the base, then what it became.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from peftkit.errors import UsageError
from peftkit.plugins.rendering import PLAIN, Rendering

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peftkit.plugins.examples import Example, Question
    from peftkit.plugins.parts import Task
    from peftkit.plugins.rows import Row

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
    by_label: Mapping[str, Any] = field(default_factory=dict)
    """How well each label is named, as plain data; empty where answers are no labels."""


@dataclass(frozen=True)
class Shortened:
    """Say what of a question is shortened where it is too long, as it was in training."""

    column: str
    keep: str
    """`start` or `end`."""


@dataclass(frozen=True)
class Scoring:
    """Hold what an evaluator is made of."""

    task: Task
    model: Model
    """The trained one, by whose limits and stop tokens all contestants answer."""
    tokenizer: PreTrainedTokenizerBase
    examples: Sequence[Example]
    rows: Sequence[Sequence[Row]]
    """Those of each example, as they are encoded for training, not yet cut."""
    source_limit: int | None
    """`Method.source_limit`"""
    batch_size: int
    generation: Mapping[str, Any]
    """Native options of `transformers.GenerationConfig` that the recipe states."""
    progress: Progress | None = None
    raw: Sequence[Mapping[str, Any]] = ()
    """The row of each example as its source gave it."""
    shortened: Shortened | None = None
    """None where rows that are too long were not shortened."""

    def say(self, what: str) -> Callable[[int, int], None] | None:
        """Return what reports the progress of one stretch of work."""
        report = self.progress
        return (lambda done, total: report(what, done, total)) if report else None


class Evaluator(ABC):
    """Put the same questions to one model after the other."""

    headline: str = ""
    """The metric that a one-line summary shows; that of the task where it is empty."""
    references: Sequence[str] = ()
    """What answers are scored against, in the rows' order; empty where nothing is answered."""
    notes: Sequence[str] = ()
    """Sentences that a person should read beside the scores."""
    options: Mapping[str, Any] = {}
    """Native generation options in force."""
    num_cut: int = 0
    """Prompts that lost the end of their last message, to leave room for an answer."""
    scores_base: bool = True
    """Whether the base can be asked too; not where its head is new."""

    def __init__(self, scoring: Scoring) -> None:
        self.scoring = scoring
        self.headline = self.headline or scoring.task.headline

    def notes_on(self, name: str, one: Contestant) -> Sequence[str]:
        """Say what a person should know of one contestant's answers.

        Args:
            name: `Base` or `Tuned`.
        """
        del name, one
        return ()

    @abstractmethod
    def take(self, model: Model, name: str) -> Contestant:
        """Let one model do all of it.

        Args:
            name: `base` or `tuned`, for progress.
        """

    def row_scores(self, one: Contestant) -> list[float]:
        """Return the headline score of each row; empty where rows have none of their own."""
        score, pairs = self.scoring.task.score, zip(one.texts, self.references, strict=True)
        return [score([text], [reference])[self.headline] for text, reference in pairs]


@dataclass(frozen=True)
class Reply:
    """Hold one answer."""

    text: str
    notes: tuple[str, ...] = ()
    """What the text does not show: that it, or the prompt, was cut."""
    values: Mapping[str, Any] | None = None
    """What `--json` shows of it instead of text and notes."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        if self.values is not None:
            return dict(self.values)
        return {"answer": self.text, "notes": list(self.notes)}


@dataclass(frozen=True)
class Asking:
    """Hold what an answerer is made of."""

    task: Task
    load: Callable[[], Model]
    """Load the model, once everything that can be refused without it is."""
    tokenizer: PreTrainedTokenizerBase
    encode: Callable[[Sequence[Example]], list[list[Row]]]
    """Give each example's rows, as they are encoded for training, not yet cut."""
    source_limit: int | None
    """`Method.source_limit`"""
    batch_size: int
    generation: Mapping[str, Any]
    """Native options of `transformers.GenerationConfig` that the recipe states."""
    options: Mapping[str, Any]
    """Those of the command line, which win."""
    is_base: bool = False
    """Whether the model is the base, as it was before training."""
    rendering: Rendering = PLAIN
    """How messages become text."""
    max_length: int | None = None
    """`Method.max_length`"""
    excess: Callable[[Example], int] = lambda _: 0
    """Return by how many tokens training would have found an example too long."""
    shortened: Shortened | None = None
    """None where rows that are too long were not shortened."""

    def refuse_options(self, model: str) -> None:
        """Refuse options to generate, of a model that reads only.

        Args:
            model: what it is, e.g. `a classifier`.

        Raises:
            UsageError: there are some.
        """
        for option in self.options:
            raise UsageError(f"{model} generates nothing, so {option} has no use")


class Answerer(ABC):
    """Answer questions with a loaded model."""

    columns: ClassVar[tuple[str, ...]]
    """Keys that hold an answer in a file of answers."""
    judges: ClassVar[bool] = False
    """Whether it is given an answer to judge, behind the prompt, and gives none itself."""
    no_conversation: str = "this model answers one text at a time"
    """Why nobody can hold a conversation with it; empty where one can."""

    def __init__(self, asking: Asking) -> None:
        self.task, self.tokenizer = asking.task, asking.tokenizer
        self.rendering = asking.rendering
        self.batch_size = asking.batch_size
        self.shortened = asking.shortened
        self.model = asking.load()

    @abstractmethod
    def reply(self, question: Question, write: Callable[[str], None], *, seed: int = 0) -> Reply:
        """Answer one question, writing the answer piece by piece.

        Args:
            seed: of consequence only where answers are sampled.
        """

    @abstractmethod
    def reply_many(self, questions: Sequence[Question]) -> Iterator[Mapping[str, Any]]:
        """Answer several questions in batches, in their order: `columns` -> values."""

    def excess(self, question: Question) -> int:
        """Return by how many tokens a question is too long to be asked whole; 0 where it is not.

        Asked only where `shortened` says what to do about it.
        """
        del question
        return 0

    def fits(self, question: Question) -> bool:
        """Tell whether a conversation leaves room for an answer."""
        del question
        return True
