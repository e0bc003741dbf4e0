"""Triple preference optimisation (Saeidi et al. 2024, arXiv 2405.16681), through trl.

Three answers a prompt: a gold one that is learned as it is, and two of which one is preferred. No
reference model is asked. Everything that peftkit asks of the method and of its task is here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.methods.answers import OWNED, AnswersMethod
from peftkit.plugins import Example, Preference
from peftkit.tasks.preference import PreferenceConfig, PreferenceTask
from peftkit.tasks.turns import Turns, read_turns

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

    from peftkit.preprocessing.answer_rows import Answered


@dataclass(frozen=True)
class Triple(Example):
    """Hold a pair of answers, and the gold one."""

    pair: Preference
    gold: Turns

    @property
    def texts(self) -> tuple[str, ...]:
        """Return what each message says, and all answers."""
        return (*self.pair.texts, *(message["content"] for message in self.gold))

    @property
    def asked(self) -> Any:
        """Return what the pair asks: rows of one prompt never fall into different splits."""
        return self.pair.asked

    @property
    def prompt(self) -> Turns:
        """Return the messages, which a trained model can be asked to answer."""
        return self.pair.prompt

    @property
    def reference(self) -> str:
        """Return the gold answer, which a generated one is scored against."""
        return self.gold[-1]["content"]


@dataclass(frozen=True)
class TripleConfig(PreferenceConfig):
    """Say which columns hold what; each holds a text, or a list of messages."""

    reference: str = "reference"
    """Column of the gold answer."""


class TripleTask(PreferenceTask):
    """Turn a prompt and three answers into an example."""

    Config: ClassVar[type | str] = TripleConfig
    makes: ClassVar[tuple[type[Example], ...]] = (Triple,)

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns of the pair, and that of the gold answer."""
        return (*super().columns, self.config.reference)

    def example(self, row: Mapping[str, Any]) -> Triple:
        """Make one example of one row."""
        gold = read_turns(row, self.config.reference, role="assistant")
        return Triple(super().example(row), gold)


class TPO(AnswersMethod):
    """Train a causal model on gold answers, and to prefer one of two others."""

    Config = "peftkit_preferences.tpo:TPOConfig"
    examples = (Triple,)
    answers = ("chosen_ids", "rejected_ids", "reference_ids")
    refers = False
    fuses_head = False
    unplanned = "its loss picks the tokens of answers, whose number no plan knows"
    offloads_activations = False  # an option that trl's TPOConfig lacks
    owned: ClassVar[Mapping[str, str]] = {
        **OWNED,
        "truncation_mode": "nothing: answers are cut at their end, so that all keep the prompt",
        "train_sampling_strategy": "nothing: trl's rows have no length to be grouped by",
    }

    @property
    def num_sequences(self) -> int:
        """Return how many answers of a row trl puts into a batch."""
        return 3 if self.config.tpo_alpha else 2

    def answered(self, example: Triple) -> Answered:
        """Return the prompt, the better answer, the worse one and the gold one."""
        return example.prompt, (example.pair.chosen, example.pair.rejected, example.gold)

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's TPOTrainer, for rows that are encoded."""
        return _trainer_class()

    def loss(self) -> None:
        """Return that its trainer alone computes it."""
        return


@cache
def _trainer_class() -> type[Trainer]:
    """Extend trl's trainer, imported only when asked for."""
    with _no_notice():
        from trl.experimental.tpo import TPOTrainer

    class EncodedTPOTrainer(TPOTrainer):  # type: ignore[misc] # trl is untyped
        """Take rows as they are: trl has no option that says that they are encoded."""

        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset

    return EncodedTPOTrainer


def __getattr__(name: str) -> Any:
    """Import `TPOConfig` on first use, without trl's notice that it may change."""
    if name != "TPOConfig":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _no_notice():
        from trl.experimental.tpo import TPOConfig

    return TPOConfig


def _no_notice() -> warnings.catch_warnings[Any]:
    return warnings.catch_warnings(action="ignore")
