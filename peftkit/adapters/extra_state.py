"""What an adapter remembers beyond PEFT's own file, kept in checkpoints so that runs resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftkit.rundir.checkpoints import sealed_folder, unsealed_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import TrainerState, TrainingArguments

FILE = "adapter_state.pt"


def write_state(args: TrainingArguments, state: TrainerState, content: Mapping[str, Any]) -> None:
    """Put tensors and plain values into the checkpoint that is being written."""
    import torch

    if state.is_world_process_zero:
        folder = unsealed_folder(Path(str(args.output_dir)), state.global_step)
        torch.save(dict(content), folder / FILE)


def read_resumed(args: TrainingArguments, state: TrainerState) -> dict[str, Any] | None:
    """Read what the checkpoint holds that training resumes from; None at a fresh start."""
    if state.global_step == 0:
        return None
    return read_state(sealed_folder(Path(str(args.output_dir)), state.global_step))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint's file; its hashes must have been compared before."""
    import torch

    content: dict[str, Any] = torch.load(checkpoint / FILE, map_location="cpu", weights_only=True)
    return content
