"""mlx-lm's configs become recipes that say the same."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, flat, imported, recipe_of, refused, unaccounted

from peftkit.importers.mlx import TABLE

CONFIG = """\
model: Qwen/Qwen2.5-0.5B-Instruct
train: true
data: rows
fine_tune_type: lora
num_layers: -1
batch_size: 2
iters: 600
learning_rate: 1e-5
steps_per_eval: 100
save_every: 200
adapter_path: out
max_seq_length: 1024
mask_prompt: false
lora_parameters:
  keys: ["self_attn.q_proj", "self_attn.v_proj"]
  rank: 8
  scale: 20.0
  dropout: 0.1
lr_schedule:
  name: cosine_decay
  warmup: 50
  arguments: [1e-5, 600, 1e-7]
"""


def test_a_config_becomes_the_recipe_that_does_the_same(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("train", "valid"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text('{"messages": []}\n')
    written = imported(tmp_path, CONFIG)
    recipe = recipe_of(written)
    assert recipe["adapter"]["lora"] == {
        "target_modules": ["q_proj", "v_proj"], "r": 8, "lora_alpha": 160, "lora_dropout": 0.1,
    }  # fmt: skip
    sft = recipe["method"]["sft"]
    assert {"max_steps": 600, "per_device_train_batch_size": 2, "max_length": 1024, "seed": 0,
            "warmup_steps": 50, "lr_scheduler_type": "cosine_with_min_lr", "eval_steps": 100,
            "save_steps": 200}.items() <= sft.items()  # fmt: skip
    assert recipe["data"]["splits"] == {"train": "train", "validation": "validation"}
    assert recipe["data"]["dialogue"] == {"train": "everything"}
    assert written.problems == ()
    assert unaccounted(written, flat(yaml.safe_load(CONFIG))) == []


def test_a_command_is_read(tmp_path):
    script = "python -m mlx_lm.lora --model a/b --train --data ./d --iters 100 --lora-layers 8\n"
    written = imported(tmp_path, script, "train.sh")
    recipe = recipe_of(written)
    assert recipe["method"]["sft"]["max_steps"] == 100
    assert recipe["adapter"]["lora"]["layers_to_transform"] == list(range(-8, 0))
    assert refused(written) == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(
    st.sampled_from(sorted(key for key in TABLE if "." not in key and key != "model")),
    ANYTHING, max_size=9))  # fmt: skip
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    config = {"model": "a/b", **config}
    written = imported(tmp_path, yaml.safe_dump(config), tool="mlx")
    assert unaccounted(written, flat(config)) == []
    assert refused(written) == []
