"""ms-swift's commands become recipes that say the same."""

from __future__ import annotations

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imported import ANYTHING, fates, imported, recipe_of, refused, unaccounted

from peftkit.importers.ms_swift import TABLE
from peftkit.plugins import Fate

SCRIPT = """\
MODEL=Qwen/Qwen2.5-7B-Instruct
CUDA_VISIBLE_DEVICES=0 \\
swift sft \\
    --model $MODEL \\
    --train_type lora \\
    --dataset 'own/rows#500' more.jsonl \\
    --split_dataset_ratio 0.01 \\
    --torch_dtype bfloat16 \\
    --learning_rate 1e-4 \\
    --lora_rank 16 \\
    --target_modules all-linear \\
    --gradient_accumulation_steps 4 \\
    --max_length 2048 \\
    --warmup_ratio 0.05 \\
    --attn_impl flash_attn \\
    --dataloader_num_workers 4 \\
    --loss_scale last_round
"""


def test_a_command_becomes_the_recipe_that_does_the_same(tmp_path):
    written = imported(tmp_path, SCRIPT, "train.sh")
    recipe = recipe_of(written)
    assert recipe["model"] == {
        "path": "Qwen/Qwen2.5-7B-Instruct", "dtype": "bfloat16",
        "attn_implementation": "flash_attention_2",
    }  # fmt: skip
    assert recipe["adapter"]["lora"] == {
        "target_modules": "all-linear", "r": 16, "lora_alpha": 32, "lora_dropout": 0.05,
    }  # fmt: skip
    sft = recipe["method"]["sft"]
    assert {"learning_rate": 1e-4, "gradient_accumulation_steps": 4, "max_length": 2048,
            "warmup_steps": 0.05, "weight_decay": 0.1, "adam_beta2": 0.95,
            "lr_scheduler_type": "cosine", "num_train_epochs": 3,
            "per_device_train_batch_size": 1}.items() <= sft.items()  # fmt: skip
    assert recipe["data"]["source"] == [
        {"hub": {"path": "own/rows"}, "splits": {"train": "train[:500]", "validation": "1%"}},
        {"json": {"files": "more.jsonl"}},
    ]
    assert recipe["data"]["dialogue"] == {"train": "last_answer"}
    assert recipe["data"]["rows"] == {"too_long": "drop"}  # swift's truncation_strategy: delete
    assert fates(written)["weight_decay"] is Fate.DEFAULT
    assert refused(written) == []


def test_full_fine_tuning_has_its_own_rate(tmp_path):
    script = "swift pt --model a/b --train_type full --dataset x.jsonl --quant_bits 4\n"
    recipe = recipe_of(imported(tmp_path, script, "train.sh"))
    assert recipe["adapter"] == "full"
    assert "quantize" not in recipe["model"]
    assert recipe["method"]["sft"]["learning_rate"] == 1e-5
    assert recipe["data"]["task"] == {"text": {}}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(
    st.sampled_from(sorted({*TABLE, "bf16"} - {"model", "model_id_or_path", "model_path"})),
    ANYTHING, max_size=9))  # fmt: skip
def test_whatever_stands_there_is_accounted_for_and_checks(tmp_path, config):
    config = {"model": "a/b", **config}
    written = imported(tmp_path, yaml.safe_dump(config), tool="ms_swift")
    assert unaccounted(written, config) == []
    assert refused(written) == []
