"""LLaMA-Factory's configs and commands become recipes that say the same."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, fates, imported, recipe_of, refused, unaccounted

from peftkit.importers.llamafactory import TABLE
from peftkit.plugins import Fate

LORA = """\
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: tickets,faq
dataset_dir: rows
template: qwen
cutoff_len: 1024
max_samples: 500
overwrite_cache: true
preprocessing_num_workers: 16
output_dir: saves/qwen
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
quantization_bit: 4
not_a_key: 1
"""
INFOS = {
    "tickets": {
        "file_name": "tickets.json",
        "formatting": "sharegpt",
        "columns": {"messages": "dialogue"},
        "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "customer",
                 "assistant_tag": "agent"},
    },
    "faq": {"file_name": "faq.json", "columns": {"prompt": "question", "response": "answer"}},
}  # fmt: skip


@pytest.fixture
def with_rows(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "dataset_info.json").write_text(json.dumps(INFOS))
    for name in ("tickets", "faq"):
        (tmp_path / "rows" / f"{name}.json").write_text("[]")
    return tmp_path


def test_a_lora_becomes_the_recipe_that_does_the_same(with_rows):
    written = imported(with_rows, LORA)
    recipe = recipe_of(written)
    assert recipe["adapter"]["lora"] == {
        "target_modules": "all-linear", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0,
    }  # fmt: skip
    sft = recipe["method"]["sft"]
    assert {"learning_rate": 1e-4, "num_train_epochs": 3.0, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8, "lr_scheduler_type": "cosine", "warmup_steps": 0.1,
            "max_length": 1024, "eval_strategy": "steps", "eval_steps": 500,
            "gradient_checkpointing": True}.items() <= sft.items()  # fmt: skip
    assert recipe["model"]["quantize"]["bitsandbytes"] == {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    }  # fmt: skip
    assert recipe["model"]["dtype"] == "bfloat16"
    first, second = recipe["data"]["source"]
    assert first["json"] == {"files": "../rows/tickets.json"}
    roles = {"customer": "user", "agent": "assistant"}
    chat = {"messages": "dialogue", "role": "who", "content": "said", "roles": roles}
    assert first["task"] == {"chat": chat}
    assert first["splits"] == {"train": "train[:500]", "validation": "10%"}
    assert second["task"] == {"prompt_completion": {"prompt": "question", "completion": "answer"}}
    assert refused(written) == []
    assert written.problems == ()


def test_every_key_is_accounted_for_once(with_rows):
    written = imported(with_rows, LORA)
    assert unaccounted(written, yaml.safe_load(LORA)) == []
    found = fates(written)
    assert found["not_a_key"] is Fate.IGNORED
    assert found["lora_alpha"] is Fate.DEFAULT
    assert found["plot_loss"] is Fate.IMPLIED
    assert found["output_dir"] is Fate.NO_EFFECT


def test_full_fine_tuning_in_bf16_holds_float32_weights_unless_pure(tmp_path):
    text = "model_name_or_path: a/b\nstage: sft\nfinetuning_type: full\ndataset: x\n"
    mixed = recipe_of(imported(tmp_path, text + "bf16: true\n"))
    assert (mixed["adapter"], mixed["model"]["dtype"]) == ("full", "float32")
    assert mixed["method"]["sft"]["bf16"] is True
    pure = recipe_of(imported(tmp_path, text + "pure_bf16: true\n"))
    assert pure["model"]["dtype"] == "bfloat16"


def test_a_command_with_variables_and_a_config_is_read(with_rows):
    (with_rows / "lora.yaml").write_text(LORA)
    script = """\
#!/bin/bash
# learning rates that were tried: 1e-4
LR=${LR:-3e-5}
OUT=saves/run_$(date +%s)
export CUDA_VISIBLE_DEVICES=0
llamafactory-cli train lora.yaml \\
    learning_rate=$LR lora_rank=32 output_dir=$OUT
"""
    written = imported(with_rows, script, "train.sh")
    recipe = recipe_of(written)
    assert recipe["method"]["sft"]["learning_rate"] == 3e-5
    assert recipe["adapter"]["lora"]["r"] == 32
    assert recipe["method"]["sft"]["num_train_epochs"] == 3.0
    assert any(note.startswith("line 4: OUT=") for note in written.notes)


def test_options_of_a_script_are_read(with_rows):
    script = """\
deepspeed --num_gpus 2 src/train_bash.py --stage dpo --do_train \\
  --model_name_or_path a/b --dataset faq --dataset_dir rows --finetuning_type lora \\
  --lora_target q_proj,v_proj --pref_beta 0.2 --learning_rate=5e-6 --fp16
"""
    written = imported(with_rows, script, "dpo.sh")
    recipe = recipe_of(written)
    assert recipe["method"]["dpo"]["beta"] == 0.2
    assert recipe["method"]["dpo"]["learning_rate"] == 5e-6
    assert recipe["adapter"]["lora"]["target_modules"] == ["q_proj", "v_proj"]
    assert recipe["model"]["dtype"] == "float16"
    assert any("starts 2 processes" in note for note in written.notes)
    assert refused(written) == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(
    st.sampled_from(sorted({*TABLE, "bf16", "warmup_ratio", "eval_steps", "save_strategy"}
                           - {"model_name_or_path"})), ANYTHING, max_size=12))  # fmt: skip
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    config = {"model_name_or_path": "a/b", **config}
    written = imported(tmp_path, yaml.safe_dump(config), tool="llamafactory")
    assert unaccounted(written, config) == []
    assert refused(written) == []
