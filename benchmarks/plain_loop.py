"""A training loop of one's own over a causal transformers model, as a method to be planned.

    PYTHONPATH=benchmarks peftkit plan recipe.yaml --gpus l40s

plans what such a loop takes:

    outputs = model(**batch, num_items_in_batch=number of real tokens)
    outputs.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()

The logits of all tokens are made, and the model computes its own loss of them in float32. One
optimizer of torch steps everything that is trained, without groups; rows are padded to the longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from peftkit.errors import UsageError
from peftkit.plugins import CAUSAL_LM, Chosen, Conversation, Example, Machine, Method, Text
from peftkit.plugins.arguments import logging, on_cpu

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, TrainingArguments

    from peftkit.errors import DataError
    from peftkit.plugins import Row
    from peftkit.plugins.losses import Loss

OWN_OPTIMIZERS = ("", "lora-fa")


class PlainLoop(Method):
    """Train a causal model on every token of its rows, in a loop of one's own."""

    Config = "plain_loop:PlainLoopArguments"
    kind = CAUSAL_LM
    examples: ClassVar[tuple[type[Example], ...]] = (Conversation, Text)

    @classmethod
    def decide(
        cls,
        options: Mapping[str, Any],
        *,
        dtype: str,  # noqa: ARG003 - a loop has no autocast unless it says so
        machine: Machine,
    ) -> Sequence[Chosen]:
        """Choose device and logging only: what a loop does not state, it does not do."""
        return [*on_cpu(machine.device, why="transformers raises on bf16"), *logging(options)]

    def encode(
        self, examples: Sequence[Any], tokenizer: PreTrainedTokenizerBase
    ) -> list[list[Row] | DataError]:
        """Encode as supervised fine-tuning does."""
        from peftkit.methods.sft import SFT

        return SFT.encode(self, examples, tokenizer)  # type: ignore[arg-type]

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer | None:
        """Make the loop's optimizer: one group of all that is trained, as a list on CUDA."""
        import torch

        args = self.config
        if args.own_optimizer == "lora-fa":
            from peft.optimizers import create_lorafa_optimizer

            config: Any = model.peft_config["default"]
            return create_lorafa_optimizer(
                model, r=config.r, lora_alpha=config.lora_alpha, lr=args.learning_rate,
                weight_decay=args.weight_decay,
            )  # fmt: skip
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            trained, lr=args.learning_rate, weight_decay=args.weight_decay, foreach=True
        )

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Freeze what the loop's optimizer freezes: one half of LoRA-FA's matrices."""
        if self.config.own_optimizer == "lora-fa":
            for name, parameter in model.named_parameters():
                if "lora_A" in name:
                    parameter.requires_grad = False

    def loss(self) -> Loss:
        """Return the model's own loss, told how many tokens it is the mean of."""

        def of_all_tokens(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
            outputs = model(**batch, num_items_in_batch=batch["input_ids"].numel())
            loss: torch.Tensor = outputs["loss"]
            return loss

        return of_all_tokens


@cache
def _arguments_class() -> type[TrainingArguments]:
    """Extend TrainingArguments, imported only when asked for, by what a loop says."""
    from transformers import TrainingArguments

    @dataclass
    class PlainLoopArguments(TrainingArguments):  # type: ignore[misc]  # transformers is untyped
        """Extend transformers' TrainingArguments by the rows' length and the loop's optimizer."""

        max_length: int | None = field(
            default=1024, metadata={"help": "Tokens of a row, cut where it is longer."}
        )
        own_optimizer: str = field(
            default="",
            metadata={"help": "Empty for torch's AdamW over lists, or lora-fa for peft's own."},
        )

        def __post_init__(self) -> None:
            if self.own_optimizer not in OWN_OPTIMIZERS:
                raise UsageError(
                    f"own_optimizer: {self.own_optimizer!r} is none of {', '.join(OWN_OPTIMIZERS)}"
                )
            super().__post_init__()

    PlainLoopArguments.__qualname__ = "PlainLoopArguments"
    return PlainLoopArguments


def __getattr__(name: str) -> type[TrainingArguments]:
    """Make `PlainLoopArguments` on first use: importing a method must not import transformers."""
    if name == "PlainLoopArguments":
        return _arguments_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
