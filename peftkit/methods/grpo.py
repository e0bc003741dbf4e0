"""Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300), through trl.

The model answers each prompt several times, and learns from which of its answers earn the higher
rewards: plugins, or the metrics of the task that the rows are of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.methods.answers import (
    OWNED,
    REFERRING,
    drop_copied_adapter,
    make_refusing_trainer,
)
from peftkit.plugins import (
    CAUSAL_LM,
    IGNORED,
    Chosen,
    Conversation,
    Machine,
    Method,
    Row,
    Task,
    Training,
    arguments,
    column_lengths,
    find,
    plugin_names,
)
from peftkit.plugins.native import is_adapted

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer
    from trl import GRPOConfig

PROMPT, REFERENCE = "prompt", "reference"
"""The columns of an arranged row: the tokens that are asked, and those of the row's own answer."""


class GRPO(Method):
    """Train a causal model by the rewards of its own answers."""

    Config = "peftkit.methods.grpo:GRPOArguments"
    kind = CAUSAL_LM
    examples = (Conversation,)
    loss_is = "policy loss of the answers that it wrote, by their rewards"
    length_option = "max_completion_length"
    unplanned = "it generates and scores answers within its step"
    owned: ClassVar[Mapping[str, str]] = {
        **OWNED,
        **REFERRING,
        "chat_template_kwargs": "model.chat_template",
        "log_completions_hub_repo": "log_completions, which writes them beside the checkpoints",
        "train_sampling_strategy": "nothing: trl repeats each prompt in an order of its own",
    }

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, machine: Machine
    ) -> Sequence[Chosen]:
        """Choose precision, checkpointing and logging where the recipe is silent."""
        counted = arguments.REAL_TOKENS.option  # trl counts prompts and answers itself
        chosen = arguments.choose_for_trl(options, dtype=dtype, machine=machine)
        return [one for one in chosen if one.option != counted]

    @classmethod
    def conflicts(
        cls, options: Mapping[str, Any], task: type[Task], task_options: Mapping[str, Any]
    ) -> list[tuple[str, str, str]]:
        """Say which rewards there are none of."""
        named = options.get("rewards") or ()
        known = [*plugin_names("rewards"), *metrics_of(task, task_options)] if named else []
        which = f"rewards are plugins and metrics of the task: {', '.join(dict.fromkeys(known))}"
        unknown = [name for name in named if name not in known]
        return [("rewards", f"there is no reward {name!r}", which) for name in unknown]

    # Rows

    @property
    def max_length(self) -> None:
        """Return that nothing is cut: a prompt is read whole."""
        return

    def encode(
        self, examples: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return conversations as `sft` does, of which the last answer is the reference."""
        from peftkit.preprocessing.dialogue import encode_dialogues

        rows = encode_dialogues(examples, tokenizer)
        return [row if isinstance(row, DataError) else [row] for row in rows]

    def sequences(self, row: Mapping[str, Any]) -> list[tuple[Sequence[int], Any]]:
        """Return the prompt with the row's own answer, which is the reference."""
        if PROMPT not in row:
            return super().sequences(row)
        prompt, answer = list(row[PROMPT]), list(row[REFERENCE])
        return [(prompt + answer, [IGNORED] * len(prompt) + answer)]

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Part each row into what is asked and the answer that rewards compare with."""
        if rows.column_names == [PROMPT, REFERENCE]:
            return rows
        return rows.map(_part, remove_columns=rows.column_names)

    def lengths(self, rows: Dataset) -> list[int]:
        """Return the tokens of each prompt with the longest answer that may be given to it."""
        room = self.config.max_completion_length or 0
        return [num + room for num in column_lengths(rows, PROMPT)]

    # Training

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's GRPOTrainer, for prompts that are encoded."""
        return _trainer_class()

    def trainer(self, parts: Training) -> Trainer:
        """Make the trainer with its rewards.

        Raises:
            UsageError: trl refuses this combination, or the base is no reference for it.
        """
        refers = bool(self.config.beta)
        if refers and not is_adapted(parts.model):
            raise UsageError(
                "without an adapter there is no reference to stay near to",
                hint="beta: 0, which needs none; or adapter: {lora: {r: 16}}",
            )
        named = self.config.rewards or [parts.task.headline if parts.task else ""]
        rewards = [reward_function(name, parts.task, parts.tokenizer) for name in named]
        trainer = make_refusing_trainer(self, parts, reward_funcs=rewards)
        if refers:
            _check_unmoved(parts.model)
            drop_copied_adapter(parts.model)
        return trainer

    def loss(self) -> None:
        """Return that only the trainer can compute it: it is of answers that it generates."""
        return


def _part(row: Mapping[str, Any]) -> dict[str, list[int]]:
    labels = row["labels"]
    end = max(at for at, label in enumerate(labels) if label != IGNORED) + 1
    start = next((at for at in range(end - 1, -1, -1) if labels[at] == IGNORED), -1) + 1
    return {PROMPT: row["input_ids"][:start], REFERENCE: row["input_ids"][start:end]}


def metrics_of(task: type[Task], options: Mapping[str, Any]) -> list[str]:
    """Name the metrics by which a task scores an answer; none where it cannot be made."""
    if not task.headline or not isinstance(task.Config, type):
        return []
    try:
        return list(task(task.Config(**options)).score(["a"], ["a"]))
    except (TypeError, DataError, UsageError):
        return []  # said where the task's options are checked


def reward_function(
    name: str, task: Task | None, tokenizer: PreTrainedTokenizerBase
) -> Callable[..., list[float]]:
    """Make of a reward's name what trl calls with prompts, answers and further columns.

    Args:
        task: whose metric it may be.
    """
    is_plugin = name in plugin_names("rewards")
    score = find("rewards", name)(None).score if is_plugin else _metric(name, task)

    def reward(
        prompts: Sequence[Sequence[int]], completions: Sequence[str], **columns: Any
    ) -> list[float]:
        texts = tokenizer.batch_decode(prompts, skip_special_tokens=True)
        references = tokenizer.batch_decode(columns[REFERENCE], skip_special_tokens=True)
        return list(score(texts, list(completions), references))

    reward.__name__ = name  # trl logs it under this name
    return reward


def _metric(name: str, task: Task | None) -> Callable[..., list[float]]:
    if task is None:
        raise UsageError(f"there is no reward {name!r}", hint="peftkit plugins lists them")

    def score(
        prompts: Sequence[str], answers: Sequence[str], references: Sequence[str]
    ) -> list[float]:
        del prompts
        pairs = zip(answers, references, strict=True)
        return [task.score([answer], [reference])[name] for answer, reference in pairs]

    return score


def _check_unmoved(model: Any) -> None:
    """Refuse an adapter that is not the base: trl's copy of it goes, and the base is the reference.

    Raises:
        UsageError: the adapter was trained already, or begins as something else than nothing.
    """
    import torch

    ids = torch.arange(3, 19, device=model.get_input_embeddings().weight.device)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        here = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
    model.train(was_training)
    limit = torch.finfo(model.dtype).eps ** 0.5 * float(base.abs().max())
    if float((here - base).abs().max()) > limit:
        raise UsageError(
            "this adapter changes the model before its first step, so that the base is no"
            " reference for it",
            hint="beta: 0, which needs none; or a new adapter, over what an earlier one was merged"
            " into",
        )


@cache
def _trainer_class() -> type[Trainer]:
    """Extend trl's trainer, imported only when asked for."""
    from trl import GRPOTrainer

    class EncodedGRPOTrainer(GRPOTrainer):  # type: ignore[misc] # trl is untyped
        """Take prompts as tokens, which peftkit has encoded and counted."""

        def _tokenize_prompts(
            self, prompts: list[list[int]]
        ) -> tuple[list[list[int]], None, dict[str, Any]]:
            return prompts, None, {}

    return EncodedGRPOTrainer


@cache
def _arguments_class() -> type[GRPOConfig]:
    """Extend trl's GRPOConfig by the rewards, which trl takes as functions."""
    from trl import GRPOConfig

    @dataclass
    class GRPOArguments(GRPOConfig):  # type: ignore[misc] # trl is untyped
        """Extend trl's GRPOConfig by the names of the rewards."""

        rewards: list[str] = field(
            default_factory=list,
            metadata={
                "help": "What answers are rewarded by: plugins of the group `peftkit.rewards` and"
                " metrics of the task, e.g. rougeL; `reward_weights` says what each counts. The"
                " task's first metric where none is named."
            },
        )

    # A checkpoint's training_args.bin pickles the class by this name.
    GRPOArguments.__qualname__ = "GRPOArguments"
    return GRPOArguments


def __getattr__(name: str) -> type[GRPOConfig]:
    """Make `GRPOArguments` on first use: importing a method must not import trl."""
    if name == "GRPOArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
