"""A training loop of one's own over a causal transformers model, as a method to be planned.

    PYTHONPATH=benchmarks peftkit plan recipe.yaml --gpus l40s

plans what such a loop takes:

    outputs = model(**batch, num_items_in_batch=number of real tokens)
    outputs.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()

The logits of all tokens are made, and the model computes its own loss of them in float32. One
optimizer of torch steps everything that is trained, without groups; rows are padded to the longest.
With `torch_empty_cache_steps` it empties CUDA's cache after a step, before gradients are dropped.
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

            adapted: Any = model
            config = adapted.peft_config["default"]
            lora_fa: torch.optim.Optimizer = create_lorafa_optimizer(
                model, r=config.r, lora_alpha=config.lora_alpha, lr=args.learning_rate,
                weight_decay=args.weight_decay,
            )  # fmt: skip
            return lora_fa
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            trained, lr=args.learning_rate, weight_decay=args.weight_decay, foreach=True
        )

    def prepare_model(self, model: torch.nn.Module) -> None:
        """Cast norms where the loop does, and freeze what its optimizer does: LoRA-FA's half."""
        import torch

        if self.config.float32_norms:
            for name, parameter in list(model.named_parameters()):
                if "norm" in name:
                    owner, _, attribute = name.rpartition(".")
                    cast = torch.nn.Parameter(parameter.detach().float(), requires_grad=False)
                    setattr(model.get_submodule(owner), attribute, cast)
        if self.config.own_optimizer == "lora-fa":
            for name, parameter in model.named_parameters():
                if "lora_A" in name:
                    parameter.requires_grad = False

    @property
    def pads(self) -> bool:  # type: ignore[override]
        """Tell whether rows have several lengths."""
        return not self.config.packed

    @property
    def empties_cache(self) -> bool:
        """Tell whether the loop calls `torch.cuda.empty_cache` after some of its steps."""
        return bool(self.config.torch_empty_cache_steps)

    def loss(self) -> Loss:
        """Return the model's own loss, told how many tokens it is the mean of.

        A loop's variable holds the outputs, and so the logits, until the next forward is done.
        """
        compute = _shifted_loss if self.config.copies_logits else _own_loss
        held: list[Any] = []

        def of_all_tokens(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
            loss, outputs = compute(model, batch)
            held[:] = [outputs] if self.config.holds_outputs else []
            return loss

        return of_all_tokens


def _own_loss(model: torch.nn.Module, batch: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
    outputs = model(**batch, num_items_in_batch=batch["input_ids"].numel())
    return outputs["loss"], outputs


def _shifted_loss(model: torch.nn.Module, batch: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
    """Shift a copy of the float32 logits, where transformers 5 shifts the labels."""
    from torch.nn import functional

    outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    logits = outputs["logits"].float()
    shifted = logits[..., :-1, :].contiguous()
    labels = batch["labels"][..., 1:].contiguous()
    loss = functional.cross_entropy(shifted.view(-1, shifted.shape[-1]), labels.view(-1))
    return loss, outputs


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

        packed: bool = field(
            default=False, metadata={"help": "Rows are full, so that a batch has no mask."}
        )
        holds_outputs: bool = field(
            default=True, metadata={"help": "The logits live until the next forward is done."}
        )
        copies_logits: bool = field(
            default=False, metadata={"help": "Shift a copy of the logits, as transformers 4 did."}
        )
        float32_norms: bool = field(
            default=False, metadata={"help": "Norms in float32, as prepare_model_for_kbit_training"}
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
