"""What the methods share that compare answers to a prompt, through trainers of trl.

A row holds a prompt's tokens and those of each answer, which trl's collators join. The policy is
the model with its adapter and the reference the same model with the adapter switched off, so that
no second model is loaded.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.plugins import (
    CAUSAL_LM,
    IGNORED,
    Chosen,
    Evaluator,
    Machine,
    Method,
    Point,
    Row,
    RowCount,
    Scoring,
    Training,
    arguments,
    column_lengths,
    make_trainer,
)
from peftkit.plugins.native import is_adapted
from peftkit.plugins.rendering import PLAIN

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from peftkit.preprocessing.answer_rows import Answered

PROMPT = "prompt_ids"
"""The column of a prompt's tokens, as trl's collators take it."""
NO_SECOND_MODEL = "nothing: the reference is the base, with the adapter switched off"
OWNED: Mapping[str, str] = {
    **arguments.OWNED,
    "model_init_kwargs": "the keys of `model:`",
    "trust_remote_code": "model.trust_remote_code",
    "dataset_num_proc": "nothing: rows are encoded in batches before training",
}
"""Keys of every trainer of trl that peftkit sets itself -> what to use instead."""
REFERRING: Mapping[str, str] = dict.fromkeys(
    ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), NO_SECOND_MODEL
)
"""Those of trainers that compare the policy with a reference."""


class AnswersMethod(Method):
    """Train a causal model on answers to a prompt that are compared."""

    kind = CAUSAL_LM
    answers: ClassVar[tuple[str, ...]]
    """The columns of the answers' tokens."""
    refers: ClassVar[bool] = True
    """Whether the loss compares the policy with a reference."""
    fuses_head = True
    owned: ClassVar[Mapping[str, str]] = {**OWNED, **REFERRING}

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, machine: Machine
    ) -> Sequence[Chosen]:
        """Choose precision, checkpointing and logging where the recipe is silent."""
        return arguments.choose_for_trl(options, dtype=dtype, machine=machine)

    # Rows

    @abstractmethod
    def answered(self, example: Any) -> Answered:
        """Return an example's prompt and its answers, in the order of `answers`."""

    def rows(self, example: Any, prompt: list[int], answers: list[list[int]]) -> list[Row]:
        """Make the rows of one example."""
        del example
        return [{PROMPT: prompt, **dict(zip(self.answers, answers, strict=True))}]

    def encode(
        self, examples: Sequence[Any], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return the prompt's tokens and those of each answer, as trl tells them apart."""
        from peftkit.preprocessing.answer_rows import encode_answers

        asked = [self.answered(example) for example in examples]
        rendering = examples[0].rendering if examples else PLAIN
        found = encode_answers(asked, tokenizer, rendering)
        return [
            one if isinstance(one, DataError) else self.rows(example, *one)
            for example, one in zip(examples, found, strict=True)
        ]

    def sequences(self, row: Mapping[str, Any]) -> list[tuple[Sequence[int], Any]]:
        """Return the prompt with each answer, of which the answer is trained."""
        prompt = list(row[PROMPT])
        answers = [list(row[name]) for name in self.answers]
        return [(prompt + answer, [IGNORED] * len(prompt) + answer) for answer in answers]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count every sequence, each with the prompt; a prompt that fills its row leaves none."""
        num_prompt = len(row[PROMPT])
        whole = [num_prompt + len(row[name]) for name in self.answers]
        longest = max(whole)
        limit = longest if self.max_length is None else self.max_length
        kept = [min(num, limit) for num in whole]
        return RowCount(
            length=longest,
            needed=num_prompt + 1,
            num_tokens=sum(kept),
            num_trained=sum(max(num - num_prompt, 0) for num in kept),
            is_cut=longest > limit,
            is_ended=longest <= limit,
        )

    def cut(self, row: Row) -> Row:
        """Cut answers where trl's collator would."""
        room = None if self.max_length is None else max(self.max_length - len(row[PROMPT]), 0)
        return {**row, **{name: row[name][:room] for name in self.columns_of_answers(row)}}

    def columns_of_answers(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Name the columns of a row that follow its prompt."""
        del row
        return self.answers

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Cut answers here already, so that the audit and the plan see what is trained."""
        if self.max_length is None or max(self.lengths(rows), default=0) <= self.max_length:
            return rows
        return rows.map(self.cut, features=rows.features)

    def lengths(self, rows: Dataset) -> list[int]:
        """Return the tokens of each prompt with the longest of its answers."""
        names = [name for name in rows.column_names if name in self.columns_of_answers({})]
        longest = map(max, zip(*(column_lengths(rows, name) for name in names), strict=True))
        pairs = zip(column_lengths(rows, PROMPT), longest, strict=True)
        return [num_prompt + num_answer for num_prompt, num_answer in pairs]

    # Training

    def trainer(self, parts: Training) -> Trainer:
        """Make the trainer; the copy of the adapter that trl takes for a reference goes again.

        Raises:
            UsageError: trl refuses this combination, or the base is no reference for it.
        """
        has_adapter = is_adapted(parts.model)
        needs_base = self.refers and not self.config.precompute_ref_log_probs
        if needs_base and not has_adapter:
            raise UsageError("without an adapter there is no reference", hint=_WAY_OUT)
        trainer = make_refusing_trainer(self, parts, **self.trainer_options(parts))
        if self.refers and has_adapter:
            drop_copied_adapter(parts.model)
        if needs_base:
            self._check_reference(trainer)
        return trainer

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Switch dropout off as trl does, unless it is told not to."""
        if self.config.disable_dropout:
            from trl.trainer.utils import disable_dropout_in_model

            disable_dropout_in_model(model)

    def _check_reference(self, trainer: Trainer) -> None:
        """Refuse an adapter that is not the base before step 1: switched off, it is another.

        An adapter that goes on training is such a one, and one that takes part of the weights away
        (`init_lora_weights: pissa`). What rounding alone does to a token is let pass.
        """
        import torch

        model: Any = trainer.model
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[0]]))
        was_training = model.training
        model.eval()
        with torch.no_grad():
            policy = log_probabilities(model, batch)
            with model.disable_adapter():
                reference = log_probabilities(model, batch)
        model.train(was_training)
        distance = (policy - reference).abs() / batch["completion_mask"].sum(dim=1).clamp(min=1)
        if float(distance.max()) > math.sqrt(torch.finfo(model.dtype).eps):
            raise UsageError(
                "this adapter changes the model before its first step"
                f" ({float(distance.max()):.2g} nats a token), so that the base is no reference"
                " for it",
                hint=_WAY_OUT,
            )

    # Planning

    @property
    def padding_multiple(self) -> int:
        """Return what trl's collator rounds lengths up to a multiple of."""
        return int(self.config.pad_to_multiple_of or 1)

    @property
    def offloads_activations(self) -> bool:
        """Tell whether trl keeps on the host what the backward needs."""
        return bool(self.config.activation_offloading)

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return all first answers, then all second ones, and which tokens are of an answer."""
        shape = super().columns(point)["input_ids"]
        return {"input_ids": shape, "completion_mask": shape}

    # Scoring

    def evaluator(self, scoring: Scoring) -> Evaluator:
        """Make what compares the answers' likelihoods."""
        from peftkit.scoring.preferences import PreferenceEvaluator

        return PreferenceEvaluator(scoring, self.compared(scoring))

    def compared(self, scoring: Scoring) -> list[list[dict[str, Any]]]:
        """Return what is compared of each scored example, as `Evaluator` reads it, cut as trained.

        The better answer comes first, then the worse one.
        """
        return [
            [
                {"input_ids": ids, "labels": labels}
                for row in rows
                for ids, labels in self.sequences(self.cut(row))
            ]
            for rows in scoring.rows
        ]


_WAY_OUT = (
    "precompute_ref_log_probs: true, which asks the model before its first step; or a new adapter,"
    " over what an earlier one was merged into"
)


def make_refusing_trainer(method: Method, parts: Training, **native: Any) -> Trainer:
    """Make a trainer of trl; what it refuses is the user's to mend.

    Raises:
        UsageError: trl refuses this combination of options, model and adapter.
    """
    try:
        return make_trainer(method.trainer_class, method.config, parts, **native)
    except (ValueError, NotImplementedError) as error:
        raise UsageError(
            f"trl refuses these options with this model and adapter: {error}"
        ) from error


@cache
def on_encoded_rows(trainer_class: type[Trainer]) -> type[Trainer]:
    """Let a trainer of trl take rows as they are: it has no option that says they are encoded."""

    class OnEncodedRows(trainer_class):  # type: ignore[misc] # trl is untyped
        """Leave out what trl would do to texts."""

        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset

    return OnEncodedRows


def drop_copied_adapter(model: Any) -> None:
    """Take the copy away that trl made of the adapter; without it, trl switches the adapter off.

    It would be saved beside the adapter, and a resumed run would take it for the trained one.
    """
    if "ref" in model.peft_config:
        model.delete_adapter("ref")


def log_probabilities(
    model: torch.nn.Module, batch: Mapping[str, Any], *, prefix: str = ""
) -> torch.Tensor:
    """Return the log-probability of each sequence's answer, by the head that trl fuses.

    Args:
        prefix: of the batch's columns, where it holds further sequences.
    """
    ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}completion_mask"]
    labels = ids.masked_fill(mask == 0, IGNORED)
    outputs = model(
        input_ids=ids,
        attention_mask=batch[f"{prefix}attention_mask"],
        labels=labels,
        use_cache=False,
        fused_lm_head=True,
    )
    # A soft prompt puts positions before those of the tokens.
    found: torch.Tensor = outputs.log_probs[:, 1 - labels.shape[1] :].sum(dim=1)
    return found
