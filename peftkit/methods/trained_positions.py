"""The loss of trained positions, of batches without padding: what SFT trains by where it can.

trl scores every position of a padded batch, and counts entropy and accuracy of each; all of that is
work for nothing where one position in eight is trained and a third is padding.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from peftkit.errors import UsageError
from peftkit.plugins.last_block import num_experts
from peftkit.plugins.native import native_model
from peftkit.plugins.speed import Speed, Way
from peftkit.plugins.trained_loss import TrainedLoss

if TYPE_CHECKING:
    from transformers import PretrainedConfig, Trainer

    from peftkit.kernels.head_loss import HeadScoring

_PLAIN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers in which a row can be told from the next by attention alone."""


def way_of(
    config: PretrainedConfig, speed: Speed, *, is_flat: bool, balances_experts: bool = False
) -> Way:
    """Say how a causal model's steps are computed.

    Args:
        is_flat: whether the recipe puts rows into one anyway, by packing.
        balances_experts: whether the method adds the loss that balances experts by itself.

    Raises:
        UsageError: what is asked for is not to be had of such a model.
    """
    from transformers import AutoModelForCausalLM

    model_class = AutoModelForCausalLM._model_mapping.get(type(config), None)
    why_not = []
    loss = None if speed.loss == "native" else _why_not_loss(config, model_class, balances_experts)
    if loss:
        _refuse(speed.loss == "trained", "speed.loss: trained", loss)
        why_not.append(f"the trainer's own loss: {loss}")
    rows = None if speed.unpad == "off" else _why_not_rows(config, model_class)
    if rows:
        _refuse(speed.unpad == "on", "speed.unpad: on", rows)
        why_not.append(f"{'packed' if is_flat else 'padded'} rows as upstream's: {rows}")
    return Way(
        scores_trained=speed.loss != "native" and not loss,
        by_rows=speed.unpad != "off" and not rows,
        why_not=tuple(why_not),
    )


def _refuse(is_asked_for: bool, key: str, reason: str) -> None:
    if is_asked_for:
        hint = f"{key.partition(':')[0]}=auto, which says so and goes on"
        raise UsageError(f"{key} is not possible with this model: {reason}", hint=hint)


def _why_not_loss(config: PretrainedConfig, model_class: Any, balances_experts: bool) -> str | None:
    text = config.get_text_config()
    if model_class is None:
        return f"{type(config).__name__} has no causal model"
    if "logits_to_keep" not in inspect.signature(model_class.forward).parameters:
        return f"{model_class.__name__} makes the logits of all positions"
    asks_routers = bool(getattr(text, "output_router_logits", None))
    if asks_routers and num_experts(text) and not balances_experts:
        return "it adds the loss that balances its experts"
    return None


def _why_not_rows(config: PretrainedConfig, model_class: Any) -> str | None:
    text = config.get_text_config()
    if model_class is None or not model_class._supports_attention_backend:
        return "this model computes attention by itself"
    parameters = inspect.signature(model_class.forward).parameters.values()
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    if not takes_any or "position_ids" not in {one.name for one in parameters}:
        return "this model is not told where rows begin"
    kinds = set(getattr(text, "layer_types", None) or ()) - _PLAIN_LAYERS
    if kinds or model_class._is_stateful:
        return f"its {', '.join(sorted(kinds)) or 'recurrent'} layers would go on into the next row"
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return "its attention bends its scores"
    return None


@dataclass(frozen=True)
class FlatCollator:
    """Put the rows of a batch one after another, as trl's padding-free collator does."""

    pad_token_id: int
    """Needed by trl's own; there is none in the batch."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return one row of all tokens, and how many each row has.

        The lengths come first: Trainer takes the rows of a batch from its first tensor, by which it
        weighs the batches of an evaluation.
        """
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        batch = DataCollatorForLanguageModeling(self.pad_token_id, padding_free=True)(examples)
        return {"row_lengths": batch["cu_seq_lens_q"].diff(), **batch}


def go_by_rows(model: Any) -> None:
    """Let a model's attention keep to the rows of such batches."""
    from peftkit.kernels import row_attention

    row_attention.register()
    native_model(model).set_attn_implementation(row_attention.NAME)


def scoring_of(config: PretrainedConfig, args: Any) -> HeadScoring:
    """Read off a model's configuration how its head is used, and off trl's what is computed."""
    from peftkit.kernels.head_loss import HeadScoring

    text = config.get_text_config()
    is_dft = getattr(args, "loss_type", None) == "dft"
    return HeadScoring(
        logit_scale=logit_scale(text),
        softcap=getattr(text, "final_logit_softcapping", None),
        label_smoothing=0.0 if is_dft else float(args.label_smoothing_factor or 0.0),
        is_dft=is_dft,
    )


def logit_scale(text: PretrainedConfig) -> float:
    """Return what a family multiplies its head's product by; families name it differently."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if (factor := getattr(text, name, None)) is not None:
            return float(factor)
    divisor = getattr(text, "logits_scaling", None)
    if divisor is None:
        return 1.0
    return float(divisor) if text.model_type == "hyperclovax" else 1 / float(divisor)


@cache
def fast_trainer(trainer_class: type[Trainer]) -> type[Trainer]:
    """Make a trainer of causal models one that scores trained positions only."""

    class TrainedPositionsTrainer(trainer_class):  # type: ignore[misc] # trl is untyped
        """Train by `TrainedLoss`, and count no metric of tokens."""

        trained_loss: TrainedLoss
        balance: float = 0.0
        """What trl's loss that balances experts weighs: a mean of each batch, not of tokens."""

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any | None = None,
        ) -> Any:
            """Return the loss; who asks for outputs too gets the trainer's own, with its logits."""
            if return_outputs:
                return super().compute_loss(
                    model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
                )
            native = native_model(self.accelerator.unwrap_model(model))
            factor, balance = 1, self.balance
            if num_items_in_batch is not None:
                balance /= self.current_gradient_accumulation_steps
                if self.args.average_tokens_across_devices:
                    # Gradients are averaged over processes, and the count is of all of them.
                    factor = self.accelerator.num_processes // self.get_tp_size()
            loss = self.trained_loss(
                model, inputs, native=native, num_items=num_items_in_batch, balance=balance / factor
            )
            return loss * factor

    return TrainedPositionsTrainer
