"""axolotl's configs become recipes that say the same."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, fates, imported, recipe_of, refused, unaccounted

from peftkit.importers.axolotl import TABLE
from peftkit.plugins import Fate

QLORA = """\
base_model: meta-llama/Llama-3.2-1B
model_type: AutoModelForCausalLM
load_in_4bit: true
strict: false
datasets:
  - path: teknium/GPT4-LLM-Cleaned
    type: alpaca
val_set_size: 0.05
output_dir: ./out
adapter: qlora
sequence_len: 2048
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
lora_fan_in_fan_out:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
optimizer: paged_adamw_32bit
learning_rate: 2e-4
bf16: auto
flash_attention: true
gradient_checkpointing: true
warmup_steps: 10
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
my_own_key: 3
"""


def test_a_qlora_becomes_the_recipe_that_does_the_same(tmp_path):
    written = imported(tmp_path, QLORA)
    recipe = recipe_of(written)
    assert recipe["model"] == {
        "path": "meta-llama/Llama-3.2-1B", "dtype": "bfloat16",
        "quantize": {"bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                      "bnb_4bit_use_double_quant": True}},
        "attn_implementation": "flash_attention_2", "chat_template": "plain",
    }  # fmt: skip
    assert recipe["adapter"] == {
        "lora": {"target_modules": "all-linear", "r": 32, "lora_alpha": 16, "lora_dropout": 0.05}
    }
    sft = recipe["method"]["sft"]
    assert {"learning_rate": 2e-4, "num_train_epochs": 4, "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4, "max_length": 2048, "packing": True,
            "optim": "paged_adamw_32bit", "warmup_steps": 10, "weight_decay": 0.0,
            "gradient_checkpointing": True}.items() <= sft.items()  # fmt: skip
    # axolotl's own defaults, which are not trl's
    assert sft["lr_scheduler_type"] == "cosine"
    assert sft["save_total_limit"] == 4
    # 4 evaluations an epoch are every sixteenth of 4 epochs, as axolotl itself computes it
    assert (sft["eval_strategy"], sft["eval_steps"]) == ("steps", 0.0625)
    assert (sft["save_strategy"], sft["save_steps"]) == ("steps", 0.25)
    assert recipe["data"]["splits"] == {"train": "train", "validation": "5%"}
    assert recipe["data"]["source"] == {"hub": {"path": "teknium/GPT4-LLM-Cleaned"}}
    assert refused(written) == []


def test_every_key_is_accounted_for_once(tmp_path):
    written = imported(tmp_path, QLORA)
    assert unaccounted(written, yaml.safe_load(QLORA)) == []
    found = fates(written)
    assert found["my_own_key"] is Fate.IGNORED
    assert found["strict"] is Fate.NO_EFFECT
    assert found["model_type"] is Fate.IMPLIED
    assert found["lr_scheduler"] is Fate.DEFAULT
    assert "1 key has no value" in str(written)


@pytest.mark.parametrize(
    ("lines", "adapter", "quantize"),
    [
        ("adapter: lora\nload_in_8bit: true", "lora", {"load_in_8bit": True}),
        ("load_in_8bit: true", "full", None),  # axolotl quantizes nothing that it trains whole
        ("adapter: ''\nlora_r: 8", "full", None),
    ],
)
def test_quantization_follows_the_adapter(tmp_path, lines, adapter, quantize):
    text = f"base_model: a/b\nmicro_batch_size: 1\nsequence_len: 64\n{lines}\n"
    text += "datasets: [{path: a.jsonl, type: chat_template}]\n"
    written = imported(tmp_path, text)
    recipe = recipe_of(written)
    found = recipe["adapter"]
    assert (found if isinstance(found, str) else next(iter(found))) == adapter
    assert (recipe["model"].get("quantize") or {"bitsandbytes": None})["bitsandbytes"] == quantize
    assert refused(written) == []


def test_a_preference_config_trains_by_dpo(tmp_path):
    text = ("base_model: a/b\nrl: dpo\nrl_beta: 0.2\nadapter: lora\nlora_r: 8\nsequence_len: 64\n"
            "micro_batch_size: 1\ndatasets: [{path: a.jsonl, type: chatml.intel}]\n")  # fmt: skip
    recipe = recipe_of(imported(tmp_path, text))
    assert recipe["method"]["dpo"]["beta"] == 0.2
    columns = {"prompt": "question", "chosen": "chosen", "rejected": "rejected"}
    assert recipe["data"]["task"] == {"preference": columns}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.sampled_from(sorted(TABLE.keys() - {"base_model"})), ANYTHING, max_size=12)
)
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    config = {"base_model": "a/b", **config}
    written = imported(tmp_path, yaml.safe_dump(config), tool="axolotl")
    assert unaccounted(written, config) == []
    assert refused(written) == []
