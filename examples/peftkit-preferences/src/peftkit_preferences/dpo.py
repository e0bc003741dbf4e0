"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), through trl.

The policy is the model with its adapter, the reference the same model with the adapter switched
off: no second model is loaded. Everything that peftkit asks of a method which is not plain
supervised training is in this one file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import DataError, UsageError
from peftkit.plugins import (
    CAUSAL_LM,
    IGNORED,
    Chosen,
    Contestant,
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
from peftkit_preferences.preference import Preference

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer

    from peftkit.plugins.losses import Loss

PROMPT, ANSWERS = "prompt_ids", ("chosen_ids", "rejected_ids")
"""The columns of a row, as trl's collator takes them."""
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
"""What trl adds to rows and batches where `precompute_ref_log_probs` is true."""
LOSSES = ("sigmoid", "hinge", "ipo")
"""Those of trl's loss types that `preference_loss` computes too."""

_NO_SECOND_MODEL = "nothing: the reference is the base, with the adapter switched off"


class DPO(Method):
    """Train a causal model to prefer one answer to another, near what it was before."""

    Config = "trl:DPOConfig"
    kind = CAUSAL_LM
    examples = (Preference,)
    num_sequences = 2
    fuses_head = True
    owned: ClassVar[Mapping[str, str]] = {
        **arguments.OWNED,
        "model_init_kwargs": "the keys of `model:`",
        "trust_remote_code": "model.trust_remote_code",
        "dataset_num_proc": "nothing: rows are encoded in batches before training",
        "pad_token": "a tokenizer with a padding token; peftkit picks one where it is missing",
        "padding_free": "nothing: trl pads all the same",
        "truncation_mode": "nothing: answers are cut at their end, so that both keep the prompt",
        "train_sampling_strategy": "nothing: trl's rows have no length to be grouped by",
        "sync_ref_model": _NO_SECOND_MODEL,
        "ref_model_mixup_alpha": _NO_SECOND_MODEL,
        "ref_model_sync_steps": _NO_SECOND_MODEL,
    }

    @classmethod
    def decide(
        cls, options: Mapping[str, Any], *, dtype: str, machine: Machine
    ) -> Sequence[Chosen]:
        """Choose precision, checkpointing and logging where the recipe is silent."""
        return arguments.choose_for_trl(options, dtype=dtype, machine=machine)

    # Rows

    def encode(
        self, examples: Sequence[Preference], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Return the prompt's tokens and those of either answer, as trl tells them apart."""
        from jinja2.exceptions import TemplateError

        if not tokenizer.chat_template:
            raise DataError(
                "the tokenizer has no chat template, which tells a prompt from its answer",
                hint="an instruction-tuned model, or a template as `model.chat_template: FILE`",
            )
        try:
            return _encode(examples, tokenizer)
        except TemplateError as error:
            if len(examples) == 1:
                return [DataError(f"the chat template refuses the messages: {error}")]
            return [self.encode([example], tokenizer)[0] for example in examples]

    def sequences(self, row: Mapping[str, Any]) -> list[tuple[Sequence[int], Any]]:
        """Return the prompt with either answer, of which the answer is trained."""
        prompt = list(row[PROMPT])
        answers = [list(row[name]) for name in ANSWERS]
        return [(prompt + answer, [IGNORED] * len(prompt) + answer) for answer in answers]

    def count(self, row: Mapping[str, np.ndarray]) -> RowCount:
        """Count both sequences, each with the prompt; a prompt that fills its row leaves none."""
        num_prompt = len(row[PROMPT])
        whole = [num_prompt + len(row[name]) for name in ANSWERS]
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
        room = None if self.max_length is None else self.max_length - len(row[PROMPT])
        return {**row, **{name: row[name][:room] for name in ANSWERS}}

    def arrange(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:  # noqa: ARG002
        """Cut answers here already, so that the audit and the plan see what is trained."""
        if self.max_length is None or max(self.lengths(rows)) <= self.max_length:
            return rows
        return rows.map(self.cut, features=rows.features)

    def lengths(self, rows: Dataset) -> list[int]:
        """Return the tokens of each prompt with the longer of its answers."""
        longer = map(max, *(column_lengths(rows, name) for name in ANSWERS))
        pairs = zip(column_lengths(rows, PROMPT), longer, strict=True)
        return [num_prompt + num_answer for num_prompt, num_answer in pairs]

    # Training

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's DPOTrainer, for rows that are encoded."""
        return _trainer_class()

    def trainer(self, parts: Training) -> Trainer:
        """Make the trainer; the copy of the adapter that trl takes for a reference goes again.

        Raises:
            UsageError: trl refuses this combination, or the base is no reference for it.
        """
        has_adapter = is_adapted(parts.model)
        if not has_adapter and not self.config.precompute_ref_log_probs:
            raise UsageError("method.dpo: without an adapter there is no reference", hint=_WAY_OUT)
        try:
            trainer = make_trainer(self.trainer_class, self.config, parts)
        except (ValueError, NotImplementedError) as error:
            raise UsageError(
                f"trl's DPOTrainer refuses method.dpo with this model and adapter: {error}"
            ) from error
        if has_adapter:
            # Without it trl switches the adapter off instead. It would be saved beside the adapter,
            # and a resumed run would take it for the trained one.
            parts.model.delete_adapter("ref")
        if has_adapter and not self.config.precompute_ref_log_probs:
            _check_reference(trainer)
        return trainer

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Switch dropout off as trl does, unless it is told not to."""
        if self.config.disable_dropout:
            from trl.trainer.utils import disable_dropout_in_model

            disable_dropout_in_model(model)

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
        """Return all chosen answers, then all rejected ones, and which tokens are of an answer."""
        shape = super().columns(point)["input_ids"]
        known = REFERENCES if self.config.precompute_ref_log_probs else ()
        return {
            "input_ids": shape,
            "completion_mask": shape,
            **dict.fromkeys(known, (point.micro_batch,)),
        }

    def loss(self) -> Loss | None:
        """Return trl's loss; None for its variants, which its trainer alone computes."""
        args = self.config
        is_plain = args.f_divergence_type == "reverse_kl" and args.ld_alpha is None
        if not is_plain or args.use_weighting or not set(args.loss_type) <= set(LOSSES):
            return None
        weights = args.loss_weights or [1.0] * len(args.loss_type)
        terms = tuple(zip(args.loss_type, weights, strict=True))
        return lambda model, batch: preference_loss(model, batch, beta=args.beta, terms=terms)

    # Scoring

    def evaluator(self, scoring: Scoring) -> Evaluator:
        """Make what compares the answers' likelihoods."""
        return PreferenceEvaluator(scoring, self)


def _encode(
    examples: Sequence[Preference], tokenizer: PreTrainedTokenizerBase
) -> list[list[Row] | DataError]:
    from peftkit.preprocessing.chat_labels import encode_chats

    chats = [[dict(message) for message in example.messages] for example in examples]
    prompts = encode_chats(chats, tokenizer, is_prompt=True)
    chosen, rejected = (
        encode_chats(
            [
                [*chat, {"role": "assistant", "content": answer}]
                for chat, answer in zip(chats, answers, strict=True)
            ],
            tokenizer,
        )
        for answers in ([one.chosen for one in examples], [one.rejected for one in examples])
    )
    return [_row(*ids) for ids in zip(prompts, chosen, rejected, strict=True)]


def _row(prompt: list[int], chosen: list[int], rejected: list[int]) -> list[Row] | DataError:
    """Part the tokens where trl does: where an answer begins to differ from the prompt alone."""
    if chosen == rejected:
        return DataError("chosen and rejected are the same")
    num = min(_num_shared(prompt, chosen), _num_shared(prompt, rejected))
    return [
        dict(zip((PROMPT, *ANSWERS), (prompt[:num], chosen[num:], rejected[num:]), strict=True))
    ]


def _num_shared(ids: Sequence[int], others: Sequence[int]) -> int:
    pairs = enumerate(zip(ids, others, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(ids), len(others)))


@cache
def _trainer_class() -> type[Trainer]:
    """Extend trl's trainer, imported only when asked for."""
    from trl import DPOTrainer

    class EncodedDPOTrainer(DPOTrainer):  # type: ignore[misc] # trl is untyped
        """Take rows as they are: trl has no option that says that they are encoded."""

        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset

    return EncodedDPOTrainer


def log_probabilities(
    model: torch.nn.Module, batch: Mapping[str, Any], labels: torch.Tensor
) -> torch.Tensor:
    """Return the log-probability of each sequence's answer, by the head that trl fuses."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
    # A soft prompt puts positions before those of the tokens.
    found: torch.Tensor = outputs.log_probs[:, 1 - labels.shape[1] :].sum(dim=1)
    return found


def preference_loss(
    model: Any, batch: Mapping[str, Any], *, beta: float, terms: Sequence[tuple[str, float]]
) -> torch.Tensor:
    """Return trl's loss of a batch: how much better chosen answers fare than rejected ones.

    Args:
        beta: how dear it is to move away from the reference.
        terms: loss types with their weights.
    """
    import torch

    mask = batch["completion_mask"]
    labels = batch["input_ids"].masked_fill(mask == 0, IGNORED)
    policy = log_probabilities(model, batch, labels)
    if REFERENCES[0] in batch:
        reference = torch.cat([batch[name] for name in REFERENCES])
    else:
        with torch.no_grad(), model.disable_adapter():
            reference = log_probabilities(model, batch, labels)
    ratios = policy - reference
    losses = [weight * _term(name, ratios, mask, beta) for name, weight in terms]
    return torch.stack(losses).sum()


def _term(name: str, ratios: torch.Tensor, mask: torch.Tensor, beta: float) -> torch.Tensor:
    from torch.nn.functional import logsigmoid

    if name == "ipo":  # arXiv 2310.12036, equation 17, of a mean over tokens as in trl
        chosen, rejected = (ratios / mask.sum(dim=1).clamp(min=1)).chunk(2)
        return ((chosen - rejected - 1 / (2 * beta)) ** 2).mean()
    chosen, rejected = ratios.chunk(2)
    margins = beta * (chosen - rejected)
    return (-logsigmoid(margins) if name == "sigmoid" else (1 - margins).relu()).mean()


_WAY_OUT = (
    "method.dpo.precompute_ref_log_probs: true, which asks the model before its first step; or a"
    " new adapter, over what an earlier one was merged into"
)


def _check_reference(trainer: Trainer) -> None:
    """Refuse an adapter that is not the base before its first step: switched off, it is another.

    An adapter that goes on training is such a one, and one that takes part of the weights away
    (`init_lora_weights: pissa`). What rounding alone does to a token is let pass.
    """
    import torch

    from peftkit.scoring.generation import evaluating

    model: Any = trainer.model
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[0]]))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    with torch.no_grad(), evaluating(model):
        policy = log_probabilities(model, batch, labels)
        with model.disable_adapter():
            reference = log_probabilities(model, batch, labels)
    distance = (policy - reference).abs() / batch["completion_mask"].sum(dim=1).clamp(min=1)
    if float(distance.max()) > math.sqrt(torch.finfo(model.dtype).eps):
        raise UsageError(
            "method.dpo: this adapter changes the model before its first step"
            f" ({float(distance.max()):.2g} nats a token), so that the base is no reference for it",
            hint=_WAY_OUT,
        )


@dataclass(frozen=True)
class Compared(Contestant):
    """Hold how much likelier each chosen answer is than the rejected one, in nats."""

    margins: tuple[float, ...] = ()


class PreferenceEvaluator(Evaluator):
    """Ask each model which of two answers is likelier, and by how much; nothing is generated."""

    headline = "accuracy"
    notes = (
        "Accuracy: the share of rows whose chosen answer is likelier than the rejected one;"
        " margin: by how many nats, on average.",
    )

    def __init__(self, scoring: Scoring, method: DPO) -> None:
        super().__init__(scoring)
        self._pairs = [method.sequences(method.cut(row)) for rows in scoring.rows for row in rows]

    def take(self, model: Any, name: str) -> Compared:
        """Compare the answers of every row."""
        from peftkit.scoring.perplexity import token_loss

        say = self.scoring.say(f"{name} compares")
        margins = []
        for pair in self._pairs:
            chosen, rejected = (
                token_loss(model, [{"input_ids": ids, "labels": labels}]).nats
                for ids, labels in pair
            )
            margins.append(rejected - chosen)
            if say:
                say(len(margins), len(self._pairs))
        num = len(margins)
        accuracy = sum(margin > 0 for margin in margins) / num
        return Compared(
            {"accuracy": accuracy, "margin": sum(margins) / num}, margins=tuple(margins)
        )

    def row_scores(self, one: Compared) -> list[float]:
        """Return whether each row's chosen answer is the likelier one."""
        return [float(margin > 0) for margin in one.margins]
