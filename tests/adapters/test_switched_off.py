"""Whether switching the adapter off gives the base back is known, and it does where it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from peftkit.adapters.switched_off import adapter_switched_off, keeps_base

IDS = [[20, 30, 40, 50, 60, 70], [21, 31, 41, 51, 61, 71]]


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor(IDS)).logits


@pytest.mark.parametrize(
    ("kind", "options", "keeps"),
    [
        ("LoraConfig", {}, True),
        ("LoraConfig", {"use_dora": True}, True),
        ("LoraConfig", {"init_lora_weights": "gaussian"}, True),
        ("LoraConfig", {"init_lora_weights": "pissa"}, False),
        ("LoraConfig", {"init_lora_weights": "olora"}, False),
        ("LoraConfig", {"init_lora_weights": "mica"}, True),
        ("LoraConfig", {"kasa_config": {"beta": 1e-4}}, False),
        ("LoraConfig", {"bias": "all"}, False),
        ("OSFConfig", {}, True),
        ("IA3Config", {"feedforward_modules": ["down_proj"]}, True),
        ("PromptTuningConfig", {"num_virtual_tokens": 3}, True),
    ],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.filterwarnings("ignore:Careful, disabling adapter layers with bias")
def test_whether_switching_off_gives_the_base_back_is_known(
    tmp_path: Path, kind: str, options: dict[str, Any], keeps: bool
) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    # With biases, which "bias: all" trains.
    folder = tiny.tiny_llama(tmp_path / "biased", attention_bias=True)
    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    before = _logits(base)
    targets = {} if kind in ("PromptTuningConfig", "OSFConfig") else {
        "target_modules": ["q_proj", "down_proj"]
    }  # fmt: skip
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **targets, **options)
    model = peft.get_peft_model(base, config).eval()
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.05
    assert keeps_base(model) is keeps
    with adapter_switched_off(model) as inner:
        assert torch.equal(_logits(inner), before) is keeps
