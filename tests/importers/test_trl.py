"""trl's and the alignment handbook's configs become recipes that say the same."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, fates, imported, recipe_of, refused, unaccounted

from peftkit.importers.trl import TABLE
from peftkit.plugins import Fate

HANDBOOK = """\
model_name_or_path: mistralai/Mistral-7B-v0.1
model_revision: main
torch_dtype: bfloat16
attn_implementation: flash_attention_2
use_peft: true
load_in_4bit: true
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_modules: [q_proj, k_proj]
dataset_mixer:
  HuggingFaceH4/ultrachat_200k: 1.0
  own/rows: 0.5
dataset_splits: [train_sft, test_sft]
preprocessing_num_workers: 12
bf16: true
do_eval: true
evaluation_strategy: epoch
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
learning_rate: 2.0e-04
lr_scheduler_type: cosine
max_seq_length: 2048
max_steps: -1
num_train_epochs: 1
output_dir: data/out
per_device_train_batch_size: 4
push_to_hub: true
save_strategy: "no"
seed: 42
warmup_ratio: 0.1
"""


def test_a_handbooks_config_becomes_the_recipe_that_does_the_same(tmp_path):
    written = imported(tmp_path, HANDBOOK)
    recipe = recipe_of(written)
    sft = recipe["method"]["sft"]
    assert {"learning_rate": 2e-4, "num_train_epochs": 1, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "warmup_steps": 0.1,
            "max_length": 2048, "eval_strategy": "epoch", "save_strategy": "no",
            "seed": 42}.items() <= sft.items()  # fmt: skip
    assert "max_steps" not in sft
    assert recipe["adapter"]["lora"]["target_modules"] == ["q_proj", "k_proj"]
    quantize = recipe["model"]["quantize"]["bitsandbytes"]
    assert quantize["load_in_4bit"] is True
    assert quantize["bnb_4bit_use_double_quant"] is False
    source = recipe["data"]["source"]
    assert source[1] == {
        "hub": {"path": "own/rows"},
        "weight": 0.5,
        "splits": {"train": "train_sft"},
    }
    assert source[2]["splits"] == {"validation": "test_sft"}
    # trl trains all of a conversation where it is not told otherwise
    assert recipe["data"]["dialogue"] == {"train": "everything"}
    assert refused(written) == []
    assert unaccounted(written, yaml.safe_load(HANDBOOK)) == []
    assert fates(written)["push_to_hub"] is Fate.NO_EFFECT


def test_a_command_of_dpo_without_peft_is_full(tmp_path):
    script = "trl dpo --model_name_or_path a/b --dataset_name c/d --beta 0.2 --loss_type ipo\n"
    written = imported(tmp_path, script, "run.sh")
    recipe = recipe_of(written)
    assert recipe["adapter"] == "full"
    assert recipe["method"]["dpo"]["beta"] == 0.2
    assert recipe["method"]["dpo"]["loss_type"] == ["ipo"]
    assert recipe["data"]["source"] == {"hub": {"path": "c/d"}}
    assert refused(written) == []


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@example({"dataset_name": True, "dataset_train_split": 0})
@given(
    st.dictionaries(
        st.sampled_from(sorted({*TABLE, "bf16"} - {"model_name_or_path"})), ANYTHING, max_size=9
    )
)
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    config = {"model_name_or_path": "a/b", **config}
    written = imported(tmp_path, yaml.safe_dump(config), tool="trl")
    assert unaccounted(written, config) == []
    assert refused(written) == []


@pytest.mark.parametrize(
    ("row", "task", "template"),
    [
        ({"messages": []}, {"chat": {}}, None),
        ({"text": "a"}, {"text": {"text": "text"}}, None),
        ({"prompt": "a", "completion": "b"}, {"prompt_completion": {}}, "plain"),
        ({"prompt": [{"role": "user", "content": "a"}],
          "completion": [{"role": "assistant", "content": "b"}]},
         {"prompt_completion": {}}, None),
    ],
)  # fmt: skip
def test_columns_of_rows_that_lie_here_say_what_they_mean(tmp_path, row, task, template):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    text = "model_name_or_path: a/b\ndataset_name: ./rows\nuse_peft: true\n"
    recipe = recipe_of(imported(tmp_path, text))
    assert recipe["data"]["task"] == task
    assert recipe["model"].get("chat_template") == template
