"""The contracts of sources, tasks, adapters, merges and exporters.

A plugin subclasses the base class of its group. What the house asks of a plugin stands there, with
a default wherever there is one; nothing else is asked, and nothing is probed for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.plugins.examples import Example, Question

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from numpy.typing import NDArray
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from peftkit.plugins.combined import Compression
    from peftkit.plugins.exported import Exported, Trained
    from peftkit.plugins.machine import Decision
    from peftkit.plugins.scheduled import Rendered, Work


class Plugin(ABC):
    """Hold what every plugin is: a class that is constructed with its own `Config`."""

    Config: ClassVar[type | str | None]
    """A frozen dataclass, or `module:Class` of a native one that is imported only when needed."""
    owned: ClassVar[Mapping[str, str]] = {}
    """Native keys that peftkit sets itself -> what to use instead."""

    def __init__(self, config: Any = None) -> None:
        self.config = config


class Source(Plugin):
    """Bring rows from somewhere."""

    @property
    def revision(self) -> str | None:
        """Return the commit that was read; None for a source without, or before it was read."""
        return None

    @abstractmethod
    def splits(self) -> Sequence[str]:
        """Name the splits that exist natively; a single file or table has `train` only."""

    def left_out(self, split: str) -> Mapping[str, int]:
        """Count what of a split that was read is no row, by reason; nothing where all of it is."""
        del split
        return {}

    @classmethod
    def named_splits(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """Name the splits that the options themselves speak of, before anything is read.

        A recipe without `splits` takes these, and one with them may leave none unread.

        Args:
            options: its own as the recipe has them, paths absolute.
        """
        del options
        return ()

    @abstractmethod
    def load(self, split: str) -> Dataset:
        """Read one native split.

        Raises:
            DataError: a file, column or row is missing or malformed; names it.
        """

    def load_columns(self, split: str, needed: Sequence[str]) -> Dataset:
        """Read one native split, of which only these columns must fit a table.

        A source whose other columns can be in the way (of mixed types, or of types that a dataset
        cannot hold) leaves those out; by default all are read.

        Raises:
            DataError: as `load`.
        """
        del needed
        return self.load(split)


class Task(Plugin):
    """Turn rows into examples, and score answers."""

    makes: ClassVar[tuple[type[Example], ...]]
    """Which kinds of examples it makes; the gate compares them with those of the method."""
    headline: ClassVar[str] = ""
    """The metric that a one-line summary shows, e.g. `rougeL`; empty when nothing is answered."""

    is_regression: ClassVar[bool] = False
    """Whether a number is predicted, by one output, where other tasks predict a label."""

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Name the columns that every row needs."""

    @property
    def document(self) -> str | None:
        """Name the column that may be shortened where a row is too long, and still make sense.

        `data.rows.too_long: cut` shortens it; None where no column is such, by default.
        """
        return None

    @property
    def optional(self) -> Sequence[str]:
        """Name those of its columns that a question does without where they are empty."""
        return ()

    @abstractmethod
    def example(self, row: Mapping[str, Any]) -> Example:
        """Make one example of one row.

        Raises:
            DataError: this row cannot be used; the audit counts it under the message.
        """

    def question(self, row: Mapping[str, Any]) -> Question:
        """Return what a trained model is given of a row, whose answer may be a stand-in.

        Raises:
            DataError: this row asks nothing.
        """
        return self.example(row).question()

    @property
    def has_unanswerable(self) -> bool:
        """Tell whether a text may leave its question without an answer, so that a model may too."""
        return False

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Tell the tokenizer, once it is loaded, what its texts are: in which languages, say.

        Raises:
            UsageError: the tokenizer cannot write such texts; the message begins with the key.
        """
        del tokenizer

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score answers against references, metric by metric; nothing where there are none."""
        del predictions, references
        return {}

    def baselines(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Give trivial answers to compare with, by name, e.g. the document's first sentence."""
        del rows
        return {}

    def metric_notes(self) -> Sequence[str]:
        """Return a sentence for each kind of metric: whose, which version, which options."""
        return ()

    def notes_on(self, references: Sequence[str]) -> Sequence[str]:
        """Return those sentences where they depend on what answers are scored against."""
        del references
        return self.metric_notes()

    @property
    def label_column(self) -> str | None:
        """Name the column that holds a label, or a number to predict; None where there is none."""
        return None

    def check_labels(self, names: Sequence[str]) -> None:
        """Refuse, by DataError, labels of the training rows that the task's options do not fit."""
        del names


class Adapter(Plugin):
    """Attach trainable parameters to a base model.

    Its `Config` is the native PEFT config (`peft:LoraConfig`); None for full fine-tuning.
    """

    fewest_bits: ClassVar[int] = 1
    """What a weight of a quantized base must have at least, where its own values are read: more
    than 8 trains on no packed base, more than 4 on none of 4 bits."""

    @classmethod
    def conflicts(
        cls, options: Mapping[str, Any], method: str, method_options: Mapping[str, Any]
    ) -> list[str]:
        """Say what in a recipe cannot work with this adapter, before anything is built.

        Args:
            options: the adapter's native keys as the recipe has them.
            method: the training method's name.
            method_options: the training method's native keys as the recipe has them.
        """
        del options, method, method_options
        return []

    @classmethod
    def decide(cls, method: str, method_options: Mapping[str, Any]) -> Sequence[Decision]:
        """Choose the training method's native keys that this adapter depends on."""
        del method, method_options
        return ()

    @abstractmethod
    def attach(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        """Return the model with exactly this adapter's parameters trainable.

        Raises:
            UsageError: a target matches nothing in this model, in whole or in part; the message
                begins with its recipe key.
        """

    can_fuse: ClassVar[bool] = False
    """Whether its layers can be those of `peftkit.kernels`: the same in fewer steps."""
    is_fused: bool = False
    """Whether they are to be, where the base has layers that are served."""

    adds_positions: ClassVar[bool] = False
    """Whether a row gets positions before those of its tokens, as in prompt learning."""

    @property
    def has_names(self) -> bool:
        """Tell whether its options may name parts of the base, which `check_names` looks for."""
        return self.Config is not None

    new_tokens: Sequence[int] = ()
    """Tokens that the base was not trained with, whose rows are trained one by one."""

    def with_tokens(self, ids: Sequence[int]) -> Adapter:
        """Return the adapter that trains the rows of these tokens too, which the base has not read.

        By default it is the same: what trains whole embeddings trains them.
        """
        del ids
        return self

    def check_names(self, model: PreTrainedModel) -> None:
        """Hold the names that the options state against a model built without weights.

        Raises:
            UsageError: a name matches nothing.
        """
        del model

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Return what the trainer must call for this adapter to be itself."""
        return ()

    def state_bytes(self, model: PreTrainedModel | PeftModel) -> Sequence[int]:
        """Return the bytes of each tensor that it keeps while training, the optimizer's apart."""
        del model
        return ()

    has_own_checkpoints: ClassVar[bool] = False
    """Whether a checkpoint holds more of it than PEFT's own file, which `load_checkpoint` reads."""

    def load_checkpoint(self, model: PreTrainedModel | PeftModel, checkpoint: Path) -> None:
        """Make a model that `attach` made what it was when the checkpoint was written."""
        del model, checkpoint


class Merge(Plugin):
    """Combine several adapters into one."""

    combines: ClassVar[str]
    """`deltas` (changes of whole weights), or `factors` (LoRA's A and B, each by itself)."""
    is_linear: ClassVar[bool] = False
    """Whether `combine` is the weighted sum, which need not see a whole weight at once."""

    @property
    def weights(self) -> Sequence[float]:
        """Return one weight for each adapter: by default the option `weights`."""
        stated: Sequence[float] = self.config.weights
        return stated

    @property
    def compression(self) -> Compression | None:
        """Say how deltas become a new LoRA; None where all their ranks are kept."""
        return None

    @abstractmethod
    def combine(
        self, parts: Sequence[NDArray[Any]], weights: Sequence[float], name: str
    ) -> NDArray[Any]:
        """Combine one tensor of those adapters that have it.

        Args:
            parts: float64, all of one shape; not to be written into.
            weights: one for each part; with LoRA's own scale in them for factors.
            name: of the tensor, for chance to be drawn from.
        """


class Reward(Plugin):
    """Say how good an answer is, for a method that learns from a model's own answers."""

    Config: ClassVar[type | str | None] = None
    """Rewards are named without options."""

    @abstractmethod
    def score(
        self, prompts: Sequence[str], answers: Sequence[str], references: Sequence[str]
    ) -> Sequence[float]:
        """Score each answer, the higher the better.

        Args:
            prompts: what was asked, as the chat template wrote it, special tokens left out.
            references: the rows' own answers.
        """


class Exporter(Plugin):
    """Write a trained model in another program's format."""

    reads: ClassVar[str]
    """`model` (an adapter is merged into its base first) or `adapter`."""

    @abstractmethod
    def export(self, trained: Trained, out: Path) -> Exported:
        """Write into an empty folder and measure it; ArtefactError for what cannot be written."""


class Scheduler(Plugin):
    """Render the file by which a job system runs a recipe, and starts it again where it stopped."""

    most_machines: ClassVar[int | None] = None
    """How many machines one job can have; None for any number."""

    @abstractmethod
    def render(self, work: Work) -> Rendered:
        """Return the file; `work.shell` is the command, the same at each start."""
