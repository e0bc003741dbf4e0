"""The two things AdaLoRA does while training and that no trainer does for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.adapters.extra_state import read_resumed, read_state, write_state
from peftkit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerCallback

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's RankAllocator remembers: parameter name -> tensor."""


def orthogonality(model: Any) -> Tensor:
    """Return AdaLoRA's penalty, `orth_reg_weight` included: how far its bases are from orthonormal.

    PEFT adds it to `outputs.loss`, which trl does not use.

    Source: AdaLoRA, equation 4 (https://arxiv.org/abs/2303.10512), as PEFT computes it: the mean
    over bases of the Frobenius norm.
    """
    import torch

    config = model.peft_config["default"]
    bases = [
        parameter if "lora_A" in name else parameter.T
        for name, parameter in model.named_parameters()
        if ".lora_A.default" in name or ".lora_B.default" in name
    ]
    norms = [torch.norm(b @ b.T - torch.eye(len(b), dtype=b.dtype, device=b.device)) for b in bases]
    penalty: Tensor = config.orth_reg_weight * torch.stack(norms).mean()
    return penalty


def rank_schedule() -> TrainerCallback:
    """Return the callback that adds the penalty's gradient and moves ranks after each step.

    PEFT drops masked ranks from what it saves once the config has a rank pattern, though a later
    step may take them up again. So the config gets the pattern at the end of the training only,
    and checkpoints hold every rank, beside the averages that decide between them.
    """
    from transformers import TrainerCallback

    class RankSchedule(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Run AdaLoRA's schedule inside any transformers trainer, and go on after a resume."""

        pattern: dict[str, list[bool]] | None = None

        def on_train_begin(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Compare the schedule with the training's length, and take up where it was."""
            _check_length(model.peft_config["default"].total_step, state.max_steps)
            saved = read_resumed(args, state)
            if saved is not None:
                self.pattern = saved["rank_pattern"]
                for key in _AVERAGES:
                    found = {name: t.to(model.device) for name, t in saved[key].items()}
                    setattr(model.base_model.rankallocator, key, found)

        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            """Add the penalty's gradient to that of the loss, after clipping."""
            orthogonality(model).backward()  # type: ignore[no-untyped-call, unused-ignore]

        def on_optimizer_step(self, _: Any, state: Any, *__: Any, model: Any, **___: Any) -> None:
            """Score the bases by the gradients still there, and mask the least of them."""
            config = model.peft_config["default"]
            config.rank_pattern = self.pattern
            model.base_model.update_and_allocate(state.global_step)
            self.pattern, config.rank_pattern = config.rank_pattern, None

        def on_train_end(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Give the adapter that will be saved its ranks: the best's where that was loaded."""
            if args.load_best_model_at_end and state.best_model_checkpoint is not None:
                self.pattern = read_state(Path(state.best_model_checkpoint))["rank_pattern"]
            model.peft_config["default"].rank_pattern = self.pattern

        def on_save(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Keep the averages and the pattern."""
            averages = {key: getattr(model.base_model.rankallocator, key) for key in _AVERAGES}
            write_state(args, state, {**averages, "rank_pattern": self.pattern})

    return RankSchedule()


def state_bytes(model: Any) -> list[int]:
    """Return the bytes of each average that PEFT's RankAllocator keeps, as large as its weight."""
    trained = [p for name, p in model.named_parameters() if "lora_" in name and p.requires_grad]
    return [p.numel() * p.element_size() for p in trained for _ in _AVERAGES]


def put_back(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's weights and rank pattern into a model that was attached the same way."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"))
    model.peft_config["default"].rank_pattern = read_state(checkpoint)["rank_pattern"]


def _check_length(total_step: int, max_steps: int) -> None:
    """Refuse a schedule that this training would break off."""
    if total_step > max_steps:
        raise UsageError(
            f"adapter.adalora.total_step: {total_step}, but this run takes {max_steps} steps, so"
            " the ranks would never be settled",
            hint=f"adapter.adalora.total_step={max_steps}",
        )
