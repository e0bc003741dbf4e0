"""The contract of a training method: a base class whose defaults are plain supervised training.

A method is one class: what kind of model it trains on which examples, how examples become rows, and
what trains and scores them. Planner, probe, audit, scoring and benchmarks ask it and nobody else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.plugins import arguments
from peftkit.plugins.examples import Example
from peftkit.plugins.kinds import SCORED, ModelKind
from peftkit.plugins.losses import plain_loss
from peftkit.plugins.machine import Chosen, Machine
from peftkit.plugins.parts import Plugin, Task
from peftkit.plugins.rows import Point, Row, RowCount, column_lengths, count_sequence
from peftkit.plugins.speed import Speed, Way
from peftkit.plugins.trainer import Training, make_trainer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        PretrainedConfig,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
        ProcessorMixin,
        Trainer,
    )

    from peftkit.plugins.evaluation import Answerer, Asking, Evaluator, Scoring
    from peftkit.plugins.losses import Loss


class Method(Plugin):
    """Train one kind of model on some kinds of examples, through a trainer of the stack.

    Its `Config` is the native arguments class, e.g. `trl:SFTConfig`: TrainingArguments of a kind.
    """

    kind: ClassVar[ModelKind]
    """What it trains: `CAUSAL_LM`, `SEQUENCE_CLASSIFICATION` ..."""
    examples: ClassVar[tuple[type[Example], ...]]
    """Which kinds of examples it trains on."""
    owned: ClassVar[Mapping[str, str]] = arguments.OWNED
    length_option: ClassVar[str] = "max_length"
    """The option that says where rows are cut; of sources, where there are targets."""
    target_option: ClassVar[str | None] = None
    """The option that says where targets of their own are cut; None where rows are one sequence."""
    pads: ClassVar[bool] = True
    """Whether rows of several lengths share a batch, so that its collator makes a mask."""
    num_sequences: ClassVar[int] = 1
    """Sequences that a row puts into a batch, padded alike: 2 where a prompt has two answers."""
    fuses_head: ClassVar[bool] = False
    """Whether `loss` is trl's fused head, which keeps no logits."""
    speeds: ClassVar[frozenset[str]] = frozenset()
    """Which keys of `speed` it heeds: `loss`, `unpad`."""
    speed: Speed = Speed()
    """What the recipe asks for of them, as far as recipe and adapter let it."""
    answer_options: ClassVar[frozenset[str]] = frozenset()
    """Options that only say how answers are found, which may change after training."""
    tokenizers: ClassVar[tuple[str, ...]] = ("bpe",)
    """Which kinds of `model.tokenizer` `train_tokenizer` trains."""
    processor: ProcessorMixin | None = None
    """Made or loaded before anything is encoded, where its kind reads with one; else None."""
    loss_is: ClassVar[str] = "cross-entropy of the trained tokens"
    """What the loss of its curve is, as the report puts it behind `Mean`."""
    best_metrics: ClassVar[tuple[str, ...]] = ("loss",)
    """What an evaluation of its trainer returns, by which the best checkpoint may be chosen."""
    unplanned: ClassVar[str] = ""
    """Why its step cannot be planned, e.g. that it generates; empty where it can."""

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, machine: Machine
    ) -> Sequence[Chosen]:
        """Choose native options that depend on the machine; what the recipe states stays.

        Args:
            options: the native keys that stand in the recipe.
            dtype: `model.dtype`.
        """
        return arguments.choose(options, dtype=dtype, machine=machine)

    def check_config(self, config: PretrainedConfig) -> None:
        """Refuse a model that its class can be made of, and that it cannot train for all that.

        Raises:
            UsageError: names a method that can.
        """
        del config

    @classmethod
    def conflicts(
        cls, options: Mapping[str, Any], task: type[Task], task_options: Mapping[str, Any]
    ) -> Sequence[tuple[str, str, str | None]]:
        """Say what in a recipe cannot work with this method and task, before anything is built.

        Args:
            options: the native keys as the recipe has them.
            task_options: the task's keys as the recipe has them.

        Returns:
            each an option, what is wrong with it, and what to write instead.
        """
        del options, task, task_options
        return ()

    # Rows

    def takes(self, example: Example) -> bool:
        """Tell whether an example is of a kind that it trains on."""
        return isinstance(example, self.examples)

    @property
    def max_length(self) -> int | None:
        """Return the tokens that a row, or its source, may have; None where nothing is cut."""
        length: int | None = getattr(self.config, self.length_option)
        return length

    @property
    def max_target_length(self) -> int | None:
        """Return the tokens that a target may have; None where rows are one sequence."""
        length: int | None = (
            getattr(self.config, self.target_option) if self.target_option else None
        )
        return length

    @property
    def source_limit(self) -> int | None:
        """Return where what an encoder reads is cut; None where rows are one sequence."""
        return self.max_length if self.target_option else None

    @property
    def longest_row(self) -> int | None:
        """Return the tokens that an arranged row may have, where texts are joined too."""
        return self.max_length

    @property
    def keeps_end(self) -> bool:
        """Tell whether a row that is too long keeps its end."""
        return False

    @property
    def limits_rows(self) -> bool:
        """Tell whether a row can be too long for it; not where texts become windows or blocks."""
        return self.max_length is not None

    @property
    def use_cpu(self) -> bool:
        """Tell whether the CPU is used although there may be an accelerator."""
        return bool(self.config.use_cpu)

    @abstractmethod
    def encode(
        self, examples: Sequence[Any], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Give the rows of each example, not yet cut; an example's error stands in its place.

        Several rows of one example are windows of a text that is too long for one.

        Args:
            examples: of the kinds in `examples`.

        Returns:
            for each example its rows: `input_ids`, `labels` (-100 where not trained) ...
        """

    def sequences(self, row: Mapping[str, Any]) -> list[tuple[Sequence[int], Any]]:
        """Return what a model reads of a row, encoded or arranged: each sequence with its labels.

        `peftkit data` shows them, and the audit looks at how they begin.
        """
        return [(row["input_ids"], row["labels"])]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count one encoded row's tokens, cut and not."""
        return count_sequence(row["labels"], self.max_length, keeps_end=self.keeps_end)

    def weigh(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Say how much each label counts in the loss; empty where all count alike.

        Args:
            counts: label -> its training rows.

        Raises:
            DataError: an option names a label that no training row has.
        """
        del counts
        return {}

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Truncate, pack or cut encoded rows into what the trainer takes, in a fixed order."""
        del tokenizer
        return rows

    def untrained(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return an arranged row of which nothing is trained, or counted in its step's loss.

        It fills the last batch where several processes need as many rows. None where every row of
        a batch counts, as in a mean over rows: the first rows are read again there.
        """
        del row
        return None

    def check_rows(self, rows: Dataset) -> None:
        """Refuse, by DataError, arranged training rows that nothing can be learned from."""
        del rows

    def train_tokenizer(
        self, texts: Iterable[str], *, vocab_size: int, max_length: int | None
    ) -> PreTrainedTokenizerFast:
        """Train the tokenizer of a model that is made anew.

        Args:
            texts: those of the training rows.
            vocab_size: tokens in all.
            max_length: tokens of the model's context; None where it is unbounded.

        Raises:
            UsageError: this method trains no tokenizer.
        """
        del texts, vocab_size, max_length
        raise UsageError(
            f"the method {type(self).__name__} trains no tokenizer for a new model",
            hint="name a model's tokenizer by model.path, or pretrain one with pretrain_lm",
        )

    def make_processor(
        self, tokenizer: PreTrainedTokenizerFast, config: Mapping[str, Any]
    ) -> ProcessorMixin:
        """Make the processor of a model that `model.config` makes anew, around its tokenizer.

        Raises:
            UsageError: this method makes none for such a model.
        """
        del tokenizer, config
        raise UsageError(f"the method {type(self).__name__} makes no processor for a new model")

    def new_model_options(
        self, tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what the configuration of a new model must say of its tokenizer, in its words."""
        del tokenizer, config
        return {}

    # Training

    def trainer(self, parts: Training) -> Trainer:
        """Make the trainer that will train these rows in this order.

        Raises:
            UsageError: the trainer refuses this combination of options, model and adapter.
        """
        return make_trainer(self.trainer_class, self.config, parts, **self.trainer_options(parts))

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return the trainer's class: transformers' own, but for how it takes accumulated steps."""
        if not self.kind.counts_items:
            from peftkit.plugins.batch_mean_trainer import BatchMeanTrainer

            return BatchMeanTrainer
        from transformers import Trainer

        return Trainer  # type: ignore[no-any-return]

    taken: Way = Way()
    """How the trainer that it made last computes its steps."""

    def way(self, config: PretrainedConfig) -> Way:
        """Say how it computes its steps on a model: as its trainer does, by default.

        Raises:
            UsageError: the recipe asks for a way that this model does not let it go.
        """
        del config
        return Way()

    def trainer_options(self, parts: Training) -> dict[str, Any]:
        """Return what the class takes beside model, rows, callbacks and tokenizer: a collator."""
        del parts
        return {}

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Do what the trainer does to a model before its first step, e.g. switch dropout off.

        Planning asks for it, of a model that no trainer has seen.
        """
        del model

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer | None:
        """Make an optimizer of its own; None for the one that the arguments name."""
        del model
        return None

    # Planning

    @property
    def is_flat(self) -> bool:
        """Tell whether all rows of a batch are put into one."""
        return False

    @property
    def padding_multiple(self) -> int:
        """Return what the collator rounds the length of a batch up to a multiple of."""
        return 1

    @property
    def offloads_activations(self) -> bool:
        """Tell whether trl keeps on the host what the backward needs."""
        return False

    @property
    def empties_cache(self) -> bool:
        """Tell whether its loop empties CUDA's cache between steps, gradients still there."""
        return False

    def lengths(self, rows: Dataset) -> list[int]:
        """Return what each arranged row has of a point's length, e.g. the longer of two answers."""
        return column_lengths(rows, "input_ids")

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a batch's whole numbers, column by column; masks are added to them.

        Args:
            point: how large the micro-batch is.
        """
        shape = (point.micro_batch * self.num_sequences, point.length)
        return {"input_ids": shape, "labels": shape}

    def loss(self) -> Loss | None:
        """Return the trainer's loss of a batch, for planner and probe; None to have neither."""
        from transformers import Trainer

        from peftkit.plugins.batch_mean_trainer import BatchMeanTrainer

        plain = (Trainer.compute_loss, BatchMeanTrainer.compute_loss)
        if self.trainer_class.compute_loss not in plain:
            return None
        return plain_loss(self.config)

    def loss_on(self, config: PretrainedConfig) -> Loss | None:
        """Return the loss of its `way` on a model, which is the trainer's own by default."""
        del config
        return self.loss()

    # Scoring

    @classmethod
    def can_score(cls) -> bool:
        """Tell whether anything scores what it trains: an evaluator of its own, or its kind's."""
        return cls.evaluator is not Method.evaluator or cls.kind.answers in SCORED

    @property
    def has_evaluator(self) -> bool:
        """Tell whether `evaluator` makes one of its own; then scoring is not planned."""
        return type(self).evaluator is not Method.evaluator

    @property
    def scores_by_reading(self) -> bool:
        """Tell whether scoring reads each row once and writes nothing; it is planned as such."""
        return self.kind.answers == "labels" and not self.has_evaluator

    def evaluator(self, scoring: Scoring) -> Evaluator | None:
        """Make what scores a trained model; None for that of its kind: generation or labels."""
        del scoring
        return None

    def answerer(self, asking: Asking) -> Answerer | None:
        """Make what answers prompts; None for that of its kind."""
        del asking
        return None
