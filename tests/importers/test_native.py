"""Options of transformers' trainer keep their names."""

from __future__ import annotations

import pytest

from peftkit.importers.native import native_rules, precision, read_trainer
from peftkit.plugins.imported import Draft, Fate
from peftkit.plugins.importer import Foreign
from peftkit.recipe.signatures import signature_of


def draft(**data) -> Draft:
    return Draft(Foreign("c.yaml", data))


def test_every_option_of_the_trainer_has_a_rule():
    rules = native_rules("sft")
    assert signature_of("trl:SFTConfig").options.keys() <= rules.keys()
    assert rules["neftune_noise_alpha"].to == "method.neftune_noise_alpha"
    assert rules["evaluation_strategy"].to == "method.eval_strategy"
    assert rules["output_dir"].fate is Fate.NO_EFFECT
    assert rules["deepspeed"].fate is Fate.NO_EFFECT


@pytest.mark.parametrize(
    ("data", "steps"),
    [
        ({"warmup_ratio": 0.1}, 0.1),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, 5),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, 0.1),
        ({"warmup_ratio": 0}, None),
    ],
)
def test_warmup_by_share_or_by_steps(data, steps):
    read = draft(**data)
    read_trainer(read)
    assert read.recipe.get("method", {}).get("sft", {}).get("warmup_steps") == steps
    assert {one.key for one in read.fates} == set(data)


@pytest.mark.parametrize(
    ("data", "adapter", "dtype"),
    [
        ({"bf16": True}, "lora", "bfloat16"),
        ({"fp16": True}, "lora", "float16"),
        ({}, "lora", "auto"),
        ({"bf16": True}, None, "float32"),
        ({"pure_bf16": True}, None, "bfloat16"),
    ],
)
def test_precision(data, adapter, dtype):
    read = draft(**data)
    read.adapter = adapter
    precision(read, default="auto", pure="pure_bf16")
    assert read.recipe["model"]["dtype"] == dtype
