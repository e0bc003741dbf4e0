"""litgpt's configs and commands become recipes that say the same."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, flat, imported, recipe_of, refused, unaccounted

from peftkit.importers.litgpt import TABLE

CONFIG = """\
checkpoint_dir: checkpoints/microsoft/phi-2
out_dir: out/qlora
precision: bf16-true
quantize: bnb.nf4-dq
devices: 1
lora_r: 16
lora_alpha: 32
lora_dropout: 0.1
lora_query: true
lora_key: false
lora_value: true
lora_projection: false
lora_mlp: true
lora_head: false
data:
  class_path: litgpt.data.JSON
  init_args:
    json_path: rows.json
    mask_prompt: false
    val_split_fraction: 0.03
    prompt_style: alpaca
train:
  save_interval: 200
  global_batch_size: 8
  micro_batch_size: 2
  lr_warmup_steps: 10
  epochs: 3
  max_seq_length: 512
  min_lr: 6.0e-5
eval:
  interval: 100
optimizer:
  class_path: torch.optim.AdamW
  init_args:
    lr: 0.0002
    weight_decay: 0.0
    betas: [0.9, 0.95]
seed: 1337
"""


def test_a_config_becomes_the_recipe_that_does_the_same(tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    written = imported(tmp_path, CONFIG)
    recipe = recipe_of(written)
    assert recipe["model"] == {
        "path": "microsoft/phi-2", "dtype": "bfloat16", "chat_template": "plain",
        "quantize": {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                      "bnb_4bit_use_double_quant": True}},
    }  # fmt: skip
    modules = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    assert recipe["adapter"]["lora"]["target_modules"] == modules
    sft = recipe["method"]["sft"]
    assert {
        "learning_rate": 0.0002,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "warmup_steps": 10,
        "max_length": 512,
        "seed": 1337,
        "lr_scheduler_type": "cosine_with_min_lr",
        "adam_beta2": 0.95,
    }.items() <= sft.items()
    assert recipe["data"]["splits"] == {"train": "train", "validation": "3%"}
    assert recipe["data"]["dialogue"] == {"train": "everything"}
    assert written.problems == ()
    assert unaccounted(written, flat(yaml.safe_load(CONFIG))) == []


def test_a_command_is_read(tmp_path):
    script = ("litgpt finetune_lora checkpoints/a/b --checkpoint_dir checkpoints/a/b --data JSON"
              " --data.json_path r.json --train.epochs 2\n")  # fmt: skip
    recipe = recipe_of(imported(tmp_path, script, "train.sh"))
    assert recipe["model"]["path"] == "a/b"
    assert recipe["method"]["sft"]["num_train_epochs"] == 2
    assert "lora" in recipe["adapter"]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(
    st.sampled_from(sorted(k for k in TABLE if "." not in k and k != "checkpoint_dir")),
    ANYTHING, max_size=9))  # fmt: skip
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    config = {"checkpoint_dir": "a/b", "lora_r": 8, **config}
    written = imported(tmp_path, yaml.safe_dump(config), tool="litgpt")
    assert unaccounted(written, flat(config)) == []
    assert refused(written) == []
