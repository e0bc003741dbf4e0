"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), through trl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.methods.answers import AnswersMethod, log_probabilities, on_encoded_rows
from peftkit.plugins import Point, Preference

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

    from peftkit.plugins.losses import Loss
    from peftkit.preprocessing.answer_rows import Answered

REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
"""What trl adds to rows and batches where `precompute_ref_log_probs` is true."""
LOSSES = ("sigmoid", "hinge", "ipo")
"""Those of trl's loss types that `preference_loss` computes too."""


class DPO(AnswersMethod):
    """Train a causal model to prefer one answer to another, near what it was before."""

    Config = "trl:DPOConfig"
    examples = (Preference,)
    loss_is = "preference loss of the pairs"
    answers = ("chosen_ids", "rejected_ids")
    num_sequences = 2
    owned: ClassVar[Mapping[str, str]] = {
        **AnswersMethod.owned,
        "pad_token": "a tokenizer with a padding token; peftkit picks one where it is missing",
        "padding_free": "nothing: trl pads all the same",
        "truncation_mode": "nothing: answers are cut at their end, so that both keep the prompt",
        "train_sampling_strategy": "nothing: trl's rows have no length to be grouped by",
    }

    def answered(self, example: Preference) -> Answered:
        """Return the prompt, the better answer and the worse one."""
        return example.messages, (example.chosen, example.rejected)

    @property
    def trainer_class(self) -> type[Trainer]:
        """Return trl's DPOTrainer, for rows that are encoded."""
        from trl import DPOTrainer

        return on_encoded_rows(DPOTrainer)

    def columns(self, point: Point) -> dict[str, tuple[int, ...]]:
        """Return both answers of all rows, and the reference's view of them where it is known."""
        known = REFERENCES if self.config.precompute_ref_log_probs else ()
        return {**super().columns(point), **dict.fromkeys(known, (point.micro_batch,))}

    def loss(self) -> Loss | None:
        """Return trl's loss; None for its variants, which its trainer alone computes."""
        args = self.config
        is_plain = args.f_divergence_type == "reverse_kl" and args.ld_alpha is None
        if not is_plain or args.use_weighting or not set(args.loss_type) <= set(LOSSES):
            return None
        weights = args.loss_weights or [1.0] * len(args.loss_type)
        terms = tuple(zip(args.loss_type, weights, strict=True))
        return lambda model, batch: preference_loss(model, batch, beta=args.beta, terms=terms)


def preference_loss(
    model: Any, batch: Mapping[str, Any], *, beta: float, terms: Sequence[tuple[str, float]]
) -> torch.Tensor:
    """Return trl's loss of a batch: how much better chosen answers fare than rejected ones.

    Args:
        beta: how dear it is to move away from the reference.
        terms: loss types with their weights.
    """
    import torch

    policy = log_probabilities(model, batch)
    if REFERENCES[0] in batch:
        reference = torch.cat([batch[name] for name in REFERENCES])
    else:
        with torch.no_grad(), model.disable_adapter():
            reference = log_probabilities(model, batch)
    ratios = policy - reference
    mask = batch["completion_mask"]
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
