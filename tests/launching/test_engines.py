"""The engine files are accelerate's own, reach its plugins, and are refused where they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftkit.errors import UsageError
from peftkit.launching.engines import ENGINES, engine_of, find_missing, find_problems, overrides_for
from peftkit.recipe.load import load_recipe

RECIPE = "recipes/summarize-lora.yaml"
IN_SHARDS = ("method.sft.fsdp=true",)


def environment(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment that accelerate gives a process of an engine."""
    from accelerate.commands import launch
    from accelerate.utils import prepare_multi_gpu_env

    words = ["--config_file", str(ENGINES[name].file), "--num_processes", "2",
             "--main_process_port", "0", "script.py"]  # fmt: skip
    args, *_ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words))
    assert args.multi_gpu is (name == "ddp")
    return prepare_multi_gpu_env(args)


@pytest.mark.parametrize("name", ENGINES)
def test_accelerate_reads_the_file_and_knows_every_key(name: str) -> None:
    from accelerate.commands.config import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(ENGINES[name].file))
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert config.mixed_precision == "no"
    assert {*config.fsdp_config, *config.deepspeed_config} <= {*known}
    stage = {"zero2": 2, "zero3": 3}.get(name)
    assert config.deepspeed_config.get("zero_stage") == stage


def test_the_file_asks_for_what_the_recipe_s_own_key_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

    native = TrainingArguments("out", fsdp=True, use_cpu=True).fsdp_plugin_args
    stated = FullyShardedDataParallelPlugin(**native)
    for key, value in environment("fsdp2", monkeypatch).items():
        if key.startswith(("FSDP_", "ACCELERATE_USE")):
            monkeypatch.setenv(key, value)
    by_file = FullyShardedDataParallelPlugin()

    def plain(plugin: Any) -> dict[str, str]:
        return {key: str(value) for key, value in vars(plugin).items() if "policy" not in key}

    assert plain(by_file) == plain(stated)
    assert by_file.fsdp_version == 2


def test_an_engine_is_what_is_asked_for_or_what_the_recipe_means() -> None:
    plain, cut = load_recipe(RECIPE), load_recipe(RECIPE, IN_SHARDS)
    assert engine_of(None, plain).name == "ddp"
    assert engine_of(None, cut).name == "fsdp2"
    assert overrides_for(ENGINES["fsdp2"], plain) == list(IN_SHARDS)
    assert overrides_for(ENGINES["fsdp2"], cut) == overrides_for(ENGINES["ddp"], plain) == []
    with pytest.raises(UsageError, match=r"(?s)fsdp is none of ddp, .*try: --engine fsdp2"):
        engine_of("fsdp", plain)


def test_what_an_engine_cannot_do_is_said_from_the_recipe_alone() -> None:
    cut = load_recipe(RECIPE, IN_SHARDS)
    assert find_problems(ENGINES["fsdp2"], cut, None) == []
    [both] = find_problems(ENGINES["ddp"], cut, None)
    assert both.startswith("--engine ddp and method.sft.fsdp exclude each other")
    old = load_recipe(RECIPE, (*IN_SHARDS, "method.sft.fsdp_config={version: 1}"))
    assert "is version 2" in find_problems(ENGINES["fsdp2"], old, None)[0]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftkit.launching.engines.find_spec", lambda _: None)
    [missing] = find_missing(ENGINES["zero2"])
    assert "pip install deepspeed" in missing
    assert find_missing(ENGINES["fsdp2"]) == []


@pytest.mark.parametrize(
    ("options", "engine", "says"),
    [
        ({"load_in_8bit": True}, "fsdp2", "of 4 bits only"),
        ({"load_in_8bit": True}, "zero3", "of 4 bits only"),
        ({"load_in_4bit": True}, "fsdp2", None),
        ({"load_in_4bit": True}, "zero3", "bnb_4bit_quant_storage"),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"}, "zero3", None),
    ],
)
def test_a_quantized_base_is_cut_only_where_its_quantizer_says_so(
    options: dict[str, Any], engine: str, says: str | None
) -> None:
    from transformers import BitsAndBytesConfig

    from peftkit.quantizers.bitsandbytes import BitsAndBytes

    quantizer = BitsAndBytes(BitsAndBytesConfig(**options))
    found = find_problems(ENGINES[engine], load_recipe(RECIPE), quantizer)
    assert [says in problem for problem in found] == ([True] if says else [])


def test_zero3_computes_steps_in_the_stack_s_own_way(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    (said,) = overrides_for(ENGINES["zero3"], recipe)
    told = load_recipe(tiny_recipe, [said])
    assert (told.speed.loss, told.speed.unpad, told.speed.fused_adapter) == ("native", "off", "off")
    assert overrides_for(ENGINES["zero2"], recipe) == []
    wanted = load_recipe(tiny_recipe, ["speed.unpad=on"])
    (problem,) = find_problems(ENGINES["zero3"], wanted, None)
    assert "speed.unpad: on reads several" in problem
