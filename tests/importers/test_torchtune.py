"""torchtune's configs become recipes that say the same."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, flat, imported, recipe_of, refused, unaccounted

from peftkit.importers.torchtune import TABLE

CONFIG = """\
output_dir: /tmp/out
model:
  _component_: torchtune.models.llama3_2.lora_llama3_2_1b
  lora_attn_modules: ['q_proj', 'v_proj', 'output_proj']
  apply_lora_to_mlp: True
  apply_lora_to_output: False
  lora_rank: 64
  lora_alpha: 128
tokenizer:
  _component_: torchtune.models.llama3.llama3_tokenizer
  path: ${base}/tokenizer.model
  max_seq_len: 2048
base: ./llama
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: ${base}
  checkpoint_files: [model.safetensors]
  output_dir: ${output_dir}
  model_type: LLAMA3_2
resume_from_checkpoint: False
dataset:
  _component_: torchtune.datasets.alpaca_cleaned_dataset
  packed: True
seed: null
shuffle: True
batch_size: 4
optimizer:
  _component_: torch.optim.AdamW
  fused: True
  weight_decay: 0.01
  lr: 3e-4
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 100
loss:
  _component_: torchtune.modules.loss.CEWithChunkedOutputLoss
epochs: 2
max_steps_per_epoch: null
gradient_accumulation_steps: 8
compile: False
metric_logger:
  _component_: torchtune.training.metric_logging.DiskLogger
  log_dir: ${output_dir}/logs
device: cuda
dtype: bf16
enable_activation_checkpointing: True
profiler:
  _component_: torchtune.training.setup_torch_profiler
  enabled: False
"""


def test_a_config_becomes_the_recipe_that_does_the_same(tmp_path):
    (tmp_path / "llama").mkdir()
    written = imported(tmp_path, CONFIG)
    recipe = recipe_of(written)
    assert recipe["model"]["path"] == "./llama"
    assert recipe["model"]["dtype"] == "bfloat16"
    assert recipe["adapter"]["lora"] == {
        "target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "r": 64, "lora_alpha": 128, "lora_dropout": 0.0,
    }  # fmt: skip
    sft = recipe["method"]["sft"]
    assert {"learning_rate": 3e-4, "num_train_epochs": 2, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 8, "warmup_steps": 100, "lr_scheduler_type": "cosine",
            "weight_decay": 0.01, "max_length": 2048, "packing": True,
            "optim": "adamw_torch", "max_grad_norm": 0}.items() <= sft.items()  # fmt: skip
    assert recipe["data"]["source"] == {"hub": {"path": "yahma/alpaca-cleaned"}}
    # its alpaca sets train prompts too
    assert recipe["data"]["dialogue"] == {"train": "everything"}
    assert refused(written) == []
    assert unaccounted(written, flat(yaml.safe_load(CONFIG))) == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(sorted(key for key in TABLE if "." not in key)), ANYTHING, max_size=9
    )
)
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    base = {"checkpointer": {"_component_": "x.y", "checkpoint_dir": "a/b"}}
    written = imported(tmp_path, yaml.safe_dump({**base, **config}), tool="torchtune")
    assert unaccounted(written, flat({**base, **config})) == []
    assert refused(written) == []
