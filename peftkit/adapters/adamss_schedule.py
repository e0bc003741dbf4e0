"""AdaMSS's allocation of subspaces as a callback that outlives a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftkit.adapters.extra_state import read_resumed, write_state

if TYPE_CHECKING:
    from transformers import TrainerCallback

_AVERAGES = ("exp_avg_ipt_A", "exp_avg_ipt_B", "exp_avg_unc_A", "exp_avg_unc_B")
"""Each: adapter name -> one tensor a subspace, None before its first step."""


def subspace_schedule() -> TrainerCallback:
    """Return PEFT's own callback for `use_asa: true`, with its averages in every checkpoint."""
    from peft.tuners.adamss.asa_callback import AdamssAsaCallback

    class SubspaceSchedule(AdamssAsaCallback):  # type: ignore[misc, unused-ignore]
        """Run PEFT's schedule, and go on with it after a resume."""

        def on_train_begin(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Take up the averages, and which subspaces are switched off."""
            saved = read_resumed(args, state)
            if saved is None:
                return
            for name, layer in _layers(model):
                for key in _AVERAGES:
                    tensors = saved["averages"][f"{name}.{key}"]
                    device = next(layer.parameters()).device
                    getattr(layer, key)["default"] = [
                        None if tensor is None else tensor.to(device) for tensor in tensors
                    ]
            off = set(saved["off"])
            for name, parameter in model.named_parameters():
                if name in off:
                    parameter.requires_grad = False

        def on_save(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
            """Keep them."""
            averages = {
                f"{name}.{key}": list(getattr(layer, key)["default"])
                for name, layer in _layers(model)
                for key in _AVERAGES
            }
            off = [
                name
                for name, parameter in model.named_parameters()
                if "adamss_" in name and not parameter.requires_grad
            ]
            write_state(args, state, {"averages": averages, "off": off})

    return SubspaceSchedule()


def _layers(model: Any) -> list[tuple[str, Any]]:
    """List the layers that allocate subspaces, by name."""
    from peft.tuners.adamss.layer import AdamssLayer

    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, AdamssLayer) and "default" in module.exp_avg_ipt_A
    ]
