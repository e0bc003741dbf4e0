"""The two things AdaLoRA does while training and that no trainer does for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerCallback


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
    """Return the callback that adds the penalty's gradient and moves ranks after each step."""
    from transformers import TrainerCallback

    class RankSchedule(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Run AdaLoRA's schedule inside any transformers trainer."""

        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            """Add the penalty's gradient to that of the loss, after clipping."""
            orthogonality(model).backward()  # type: ignore[no-untyped-call, unused-ignore]

        def on_optimizer_step(self, _: Any, state: Any, *__: Any, model: Any, **___: Any) -> None:
            """Score the bases by the gradients still there, and mask the least of them."""
            model.base_model.update_and_allocate(state.global_step)

    return RankSchedule()
