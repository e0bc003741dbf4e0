"""Adapters of tiny models whose every parameter was moved, as a training would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny

from peftkit.plugins.exported import Trained


def lora(**options: Any) -> Any:
    """Return a LoRA's config; of all linear layers unless the options say otherwise."""
    from peft import LoraConfig

    settings = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    return LoraConfig(**settings)


def move_and_save(base: Path, folder: Path, config: Any) -> Trained:
    """Save an adapter of a base, every parameter moved, with a tokenizer beside it."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(4)
    attached = get_peft_model(model, config)
    with torch.no_grad():
        for parameter in attached.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    attached.save_pretrained(folder, save_embedding_layers=False)
    tiny.tiny_tokenizer(folder)
    return Trained("tiny", folder, base=str(base))
