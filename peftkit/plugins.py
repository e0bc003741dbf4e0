"""What a plugin is, where plugins are found, and how one is picked by name.

Six entry-point groups, one small Protocol each. A plugin is a class that is constructed
with an instance of its own `Config`; the gate (`peftkit.recipe.strict`) checks a recipe's
options against that `Config` before the plugin is imported where it can, and always before
it is constructed. Built-ins come through peftkit's own entry points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

GROUPS = ("sources", "tasks", "adapters", "methods", "merges", "exporters")


@dataclass(frozen=True)
class Conversation:
    """Hold one training example as chat messages; every assistant turn is trained."""

    messages: tuple[Mapping[str, str], ...]
    """Each `{"role": ..., "content": ...}`; the last one is the assistant's."""

    @property
    def prompt(self) -> tuple[Mapping[str, str], ...]:
        """Return what the model sees before its last answer."""
        return self.messages[:-1]

    @property
    def reference(self) -> str:
        """Return the last answer, which generation is scored against."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class Text:
    """Hold one training example as running text; every token is trained."""

    text: str


@dataclass(frozen=True)
class Decision:
    """Record one native option that peftkit chose because the recipe is silent."""

    key: str
    """Dotted recipe key, e.g. `method.sft.bf16`."""
    value: Any
    reason: str


@dataclass(frozen=True)
class Machine:
    """Describe the device a run will use, as far as decisions depend on it."""

    device: str
    """`cpu`, `cuda`, `mps` or `xpu`."""
    supports_bfloat16: bool
    total_bytes: int
    """Device memory, or resident memory on a CPU."""
    free_bytes: int
    name: str


@runtime_checkable
class Source(Protocol):
    """Bring rows from somewhere."""

    Config: ClassVar[type | str]
    """A frozen dataclass, or `module:Class` of a native one that is imported only when needed."""

    def __init__(self, config: Any) -> None: ...

    def splits(self) -> Sequence[str]:
        """Name the splits that exist natively; a single file or table has `train` only."""

    def load(self, split: str) -> Dataset:
        """Read one native split.

        Raises:
            DataError: a file, column or row is missing or malformed; names it.
        """


@runtime_checkable
class Task(Protocol):
    """Turn rows into examples, and score answers."""

    Config: ClassVar[type | str]
    headline: ClassVar[str]
    """The metric that a one-line summary shows, e.g. `rougeL`; empty when nothing is generated."""

    def __init__(self, config: Any) -> None: ...

    @property
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""

    def example(self, row: Mapping[str, Any]) -> Conversation | Text:
        """Make one example of one row.

        Raises:
            DataError: this row cannot be used; the audit counts it under the message.
        """

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score answers against references, metric by metric."""

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Give trivial answers to compare with, by name, e.g. the document's first sentence."""


@runtime_checkable
class Adapter(Protocol):
    """Attach trainable parameters to a base model."""

    Config: ClassVar[type | str | None]
    """The native PEFT config (`peft:LoraConfig`); None for full fine-tuning."""

    def __init__(self, config: Any) -> None: ...

    def attach(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        """Return the model with exactly this adapter's parameters trainable.

        Raises:
            ArtefactError: a target matches nothing in this model, in whole or in part.
        """


@runtime_checkable
class Method(Protocol):
    """Train: pick the model class, encode examples, make the trainer."""

    Config: ClassVar[type | str]
    """The native arguments class, e.g. `trl:SFTConfig`."""
    auto_class: ClassVar[str]
    """The transformers class that loads the model, e.g. `AutoModelForCausalLM`."""
    examples: ClassVar[tuple[type, ...]]
    """Which of `Conversation` and `Text` it can train on."""
    owned: ClassVar[Mapping[str, str]]
    """Native keys that peftkit sets itself -> what to use instead."""

    def __init__(self, config: Any) -> None: ...

    @staticmethod
    def decide(options: Mapping[str, Any], *, dtype: str, machine: Machine) -> Sequence[Decision]:
        """Choose the native options that depend on the machine and stand nowhere in the recipe."""

    def encode(
        self, example: Conversation | Text, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, list[int]]:
        """Return `input_ids` and `labels` (-100 where not trained), not yet truncated."""

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Truncate, pack or cut encoded rows into what the trainer takes, in a fixed order."""

    def trainer(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Dataset,
        validation: Dataset | None,
        callbacks: Sequence[TrainerCallback],
    ) -> Trainer:
        """Make the trainer that will train these rows in this order."""


@runtime_checkable
class Merge(Protocol):
    """Combine several adapters into one."""

    Config: ClassVar[type | str]

    def __init__(self, config: Any) -> None: ...

    def combine(self, deltas: Sequence[Any], weights: Sequence[float]) -> Any:
        """Combine one module's deltas (each of the base weight's shape) into one delta."""


@runtime_checkable
class Exporter(Protocol):
    """Write a trained model in another program's format."""

    Config: ClassVar[type | str]

    def __init__(self, config: Any) -> None: ...

    def export(self, run: Path, out: Path) -> Sequence[Path]:
        """Write the files and return them."""
