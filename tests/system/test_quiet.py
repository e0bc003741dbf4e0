"""The stack comes up without a word and without reporting home."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
from peftkit.system.quiet import quiet_stack
quiet_stack()
import bitsandbytes, peft, transformers
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY)
config = transformers.LlamaConfig(hidden_size=8, intermediate_size=8, vocab_size=8,
    num_hidden_layers=1, num_attention_heads=1)
model = transformers.LlamaForCausalLM(config)
model.gradient_checkpointing_disable()
model.is_gradient_checkpointing
"""


def test_importing_the_stack_is_silent() -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=kept, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_level_that_the_user_set_wins(monkeypatch) -> None:
    from peftkit.system.quiet import quiet_stack

    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    quiet_stack()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
