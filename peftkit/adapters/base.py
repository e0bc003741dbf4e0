"""What every PEFT method shares: attaching to a base, and saying early what cannot work."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.adapters.experts import check_loads_back, check_reach
from peftkit.adapters.fused import ask_for_fused, tie
from peftkit.adapters.names import linear_modules, recipe_key
from peftkit.adapters.targets import (
    check_head,
    check_ranks,
    check_targets,
    count_layers,
    without_others,
)
from peftkit.adapters.token_rows import train_rows
from peftkit.errors import ResourceError, UsageError, first_line
from peftkit.plugins import Adapter, Decision
from peftkit.plugins.kinds import kind_of_class
from peftkit.plugins.native import head_modules

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from peftkit.plugins import Decision
    from peftkit.plugins.quantizer import Quantizer

_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
"""The training argument's name in transformers, and the one it has in trl."""
_REFUSALS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)
"""What PEFT and torch raise for sizes and options that a model cannot take."""


class PeftAdapter(Adapter):
    """Attach one PEFT method; a subclass names its native config and what it needs."""

    Config: ClassVar[str]
    refused: ClassVar[str | None] = None
    """Why this method cannot be trained here; None for one that can."""
    way_out: ClassVar[str | None] = None
    """What to do about a refusal, or about sizes that do not suit a base."""
    needs: ClassVar[tuple[str, str] | None] = None
    """The option without a usable default, and what to write."""
    checkpoints_activations: ClassVar[bool] = True
    """Whether it trains under activation checkpointing, which trl switches on by default."""

    def __init__(self, config: Any) -> None:
        if self.refused is not None:
            raise UsageError(self.refused, hint=self.way_out)
        self.config = config

    def with_tokens(self, ids: Sequence[int]) -> PeftAdapter:
        """Return the adapter that trains the rows of these tokens, unless its options say which."""
        made = copy.copy(self)
        made.new_tokens = tuple(ids)
        return made

    @classmethod
    def conflicts(
        cls, options: Mapping[str, Any], method: str, method_options: Mapping[str, Any]
    ) -> list[str]:
        """Say what in a recipe cannot work with this method, before anything is built.

        Args:
            options: the adapter's native keys as the recipe has them.
            method_options: the training method's native keys as the recipe has them.
        """
        if cls.refused is not None:
            return [f"{cls.refused}; {cls.way_out}"]
        found = []
        if cls.needs is not None and cls.needs[0] not in options:
            found.append(f"{cls.needs[0]} is missing: {cls.needs[1]}")
        if not cls.checkpoints_activations:
            found += [
                f"{cls.__name__} cannot be trained under activation checkpointing:"
                f" remove method.{method}.{key}, or say false"
                for key in _CHECKPOINTING
                if method_options.get(key) is True
            ]
        return found

    @classmethod
    def decide(cls, method: str, method_options: Mapping[str, Any]) -> Sequence[Decision]:
        """Choose the training method's native keys that this adapter depends on."""
        if cls.checkpoints_activations or any(key in method_options for key in _CHECKPOINTING):
            return ()
        reason = f"{cls.__name__} cannot be trained under activation checkpointing"
        return (Decision(f"method.{method}.{_CHECKPOINTING[0]}", False, reason),)

    def attach(self, model: PreTrainedModel) -> PeftModel:
        """Wrap a base model; exactly the adapter's parameters are trainable afterwards.

        Adapter weights are float32 whatever the base's dtype is (PEFT's `autocast_adapter_dtype`,
        said aloud): half-precision weights lose small updates.

        Raises:
            UsageError: a target matches nothing in this model, in whole or in part; or a size does
                not suit it.
        """
        from peft import get_peft_model

        config = copy.deepcopy(self.config)
        config.task_type = task_type(model)
        count_layers(config, model)
        train_rows(config, model, self.new_tokens)
        check_targets(config, model)
        without_others(config, model)
        kind = kind_of_class(type(model).__name__)
        if kind is not None and kind.has_new_head:
            # PEFT knows a few names of heads; what it misses would stay at random.
            named = [*(config.modules_to_save or ()), *head_modules(model)]
            config.modules_to_save = list(dict.fromkeys(named))
        linear = linear_modules(model)
        if self.is_fused:
            ask_for_fused(config, model)
        try:
            with upstream_notices_ignored():
                attached = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ImportError as error:
            raise ResourceError(f"{recipe_key(config)}: {error}", hint=self.way_out) from error
        except _REFUSALS as error:
            raise UsageError(
                f"{recipe_key(config)}: {type(config).__name__} cannot be attached to"
                f" {type(model).__name__}: {first_line(error)}",
                hint=self.way_out,
            ) from error
        if self.new_tokens:
            # PEFT would compare the base's vocabulary there, and save whole embeddings with it.
            attached.peft_config["default"].base_model_name_or_path = ""
        check_ranks(self.config, attached)
        check_head(attached)
        check_loads_back(attached)
        check_reach(self.config, attached, linear)
        if self.is_fused:
            tie(attached)
        return attached

    def check_names(self, model: PreTrainedModel) -> None:
        """Hold targets against a model built without weights.

        Raises:
            UsageError: a target matches nothing in this model.
        """
        config = copy.deepcopy(self.config)
        count_layers(config, model)
        check_targets(config, model)
        without_others(config, model, is_said=False)


class ReadsWeights(PeftAdapter):
    """A method that computes with the base weights' own values, which packed ones do not show."""

    fewest_bits = 16


class PromptLearning(PeftAdapter):
    """A method that learns positions of its own, which come before those of a row."""

    adds_positions = True


class ReadsPackedBytes(PeftAdapter):
    """A method that computes with weights of 8 bits, whose shape is theirs, and with none of 4."""

    fewest_bits = 8


@contextmanager
def upstream_notices_ignored() -> Iterator[None]:
    """Ignore what PEFT warns of while attaching and that a user can do nothing about."""
    with warnings.catch_warnings():
        # PEFT 0.21.2 reads the attribute that transformers 5.23 renamed; delete when it follows.
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        # BOFT without a CUDA compiler uses plain torch; LN tuning says this of every norm class.
        warnings.filterwarnings("ignore", "Failed to load the CUDA extension", UserWarning)
        warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
        # `check_head` refuses the adapter on a tied head; the merge unties an embedding.
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        # AdaLoRA may leave a module no rank at all.
        warnings.filterwarnings("ignore", ".* LoRA tensor.* invalid shape", UserWarning)
        # `check_ranks` makes an error of these.
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
        yield


def task_type(model: PreTrainedModel) -> str | None:
    """Return the PEFT task type of a transformers model; None where PEFT has no wrapper for it."""
    if model.config.is_encoder_decoder and model.can_generate():
        return "SEQ_2_SEQ_LM"
    kind = kind_of_class(type(model).__name__)
    if kind is None and model.can_generate():
        return "CAUSAL_LM"  # a model that sees and writes, whose classes share one ending with T5's
    return kind.task_type if kind else None


def count_parameters(model: Any, quantizer: Quantizer | None = None) -> tuple[int, int]:
    """Return (trainable, total) parameters; a packed weight counts each of its numbers."""
    trainable = total = 0
    for parameter in model.parameters():
        num = parameter.numel() if quantizer is None else quantizer.num_weights(parameter)
        total += num
        trainable += num if parameter.requires_grad else 0
    return trainable, total
