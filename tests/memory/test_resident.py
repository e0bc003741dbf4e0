"""Plans against a meter that is not ours: the kernel's count of a real training's resident memory.

Everywhere else the tracker stands on both sides: it follows the fake step and the real one.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_step import CPU

from peftkit.benching.grid import Cell
from peftkit.memory.planner import plan
from peftkit.recipe.load import load_recipe

LLAMA = {
    "model_type": "llama", "vocab_size": 16000, "hidden_size": 512, "intermediate_size": 1408,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
    "tie_word_embeddings": False, "dtype": "float32",
}  # fmt: skip
FAMILIES = {
    "llama": LLAMA,
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 64, "tie_word_embeddings": True},
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 16000, "n_embd": 512, "n_layer": 6, "n_head": 8,
        "n_positions": 256, "bos_token_id": 0, "eos_token_id": 0, "dtype": "float32",
    },
}  # fmt: skip
LENGTH, ROWS = 256, 2
# A process that only trains: what a plan leaves behind would be taken for what was there before.
TRAIN = """
import json, sys
from pathlib import Path
from peftkit.benching.grid import Cell
from peftkit.benching.trial import run_trial
from peftkit.recipe.build import build
from peftkit.recipe.load import load_recipe
from peftkit.system.allocator import return_freed_memory
from peftkit.system.machine import describe_machine

assert return_freed_memory()
folder, machine = Path(sys.argv[1]), describe_machine()
cell = Cell.from_json(json.loads((folder / "cell.json").read_text()))
trial = run_trial(cell, build(load_recipe(folder / "recipe.yaml"), machine), machine, folder)
print(json.dumps(trial.to_json()))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set")
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists() or platform.libc_ver()[0] != "glibc",
    reason="needs Linux's peak of resident memory, and glibc",
)
@pytest.mark.parametrize(
    "adapter", [{"lora": {"r": 16, "target_modules": "all-linear"}}, "full"], ids=["lora", "full"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_is_what_the_kernel_counts(family: str, adapter: Any, tmp_path: Path) -> None:
    """To 5 % of what a training adds to Python and the stack."""
    sections = {
        "model": {"dtype": "float32"}, "adapter": adapter, "method": {"sft": {"use_cpu": True}}
    }  # fmt: skip
    cell = Cell("g", family, "m", FAMILIES[family], sections, LENGTH, ROWS, None, None, 1, 0)
    (tmp_path / "cell.json").write_text(json.dumps(cell.to_json()), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(cell.config), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(cell.recipe_text(tmp_path), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, tmp_path], check=True, stdout=subprocess.PIPE, text=True
    )
    trial = json.loads(done.stdout.splitlines()[-1])
    assert trial["kind"] == "resident"

    made = plan(load_recipe(tmp_path / "recipe.yaml"), lengths=[LENGTH] * ROWS, machine=CPU)
    planned = made.peak_bytes - made.term_bytes("runtime")
    assert planned == pytest.approx(trial["peak_bytes"] - trial["baseline_bytes"], rel=0.05)
