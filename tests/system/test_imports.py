"""The stack comes up without the collector and inductor, and both work afterwards."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from peftkit.system.imports import UNCOMPILED, import_uncompiled, importing

SCRIPT = """
import gc, os, sys
from peftkit.recipe.signatures import load_class

load_class("peftkit.methods.sft:SFT")
assert "torch" not in sys.modules, "a class of ours brought the stack"
load_class("peft:LoraConfig")
assert "bitsandbytes" in sys.modules
assert "torch._inductor.compile_fx" not in sys.modules
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert "TORCHDYNAMO_DISABLE" not in os.environ

import torch
seen = []
def backend(graph, inputs):
    seen.append(graph)
    return graph
torch.compile(lambda x: x + 1, backend=backend)(torch.ones(1))
assert len(seen) == 1, "torch.compile does nothing"
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
assert dequantize_4bit(*quantize_4bit(torch.ones(64))).flatten().tolist() == [1.0] * 64
"""


def test_what_is_left_out_at_first_is_there_later() -> None:
    kept = {name: value for name, value in os.environ.items() if name != UNCOMPILED}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("said", ["0", "1"])
def test_what_somebody_said_of_the_compiler_stands(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(UNCOMPILED, said)
    import_uncompiled.__wrapped__()
    assert os.environ[UNCOMPILED] == said
