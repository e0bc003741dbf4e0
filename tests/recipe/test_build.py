"""Every object is built before any weight is read; upstream's errors come back at their key."""

from __future__ import annotations

from pathlib import Path

import pytest
from wrong.cases import GOOD, write_files

from peftkit.errors import RecipeError
from peftkit.plugins import Machine
from peftkit.recipe.build import Built, build, construct, dump_resolved
from peftkit.recipe.load import load_recipe
from peftkit.recipe.yaml_file import parse

CPU = Machine("cpu", supports_bfloat16=False, total_bytes=1 << 33, free_bytes=1 << 32, name="CPU")


def make(folder: Path, text: str = GOOD, *overrides: str) -> Built:
    file = write_files(folder)
    file.write_text(text)
    return build(load_recipe(file, overrides), CPU)


def test_native_objects_are_made_with_what_was_stated_and_decided(tmp_path: Path) -> None:
    built = make(tmp_path)
    config = built.method.config  # type: ignore[attr-defined]
    assert type(config).__name__ == "SFTConfig"
    assert config.learning_rate == 2e-4
    assert config.max_steps == 10
    assert config.bf16 is False
    adapter = built.adapter.config  # type: ignore[union-attr]
    assert (adapter.r, adapter.task_type) == (8, "CAUSAL_LM")
    assert built.source.config.files == {  # type: ignore[attr-defined]
        "train": tmp_path / "rows.jsonl", "test": tmp_path / "more.jsonl",
    }  # fmt: skip
    assert {d.key for d in built.decisions} >= {"method.sft.bf16"}


def test_quantization_and_full_and_continued(tmp_path: Path) -> None:
    quantize = "dtype: float32\n  quantize: {bitsandbytes: {load_in_4bit: true," \
        " bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: bfloat16}}"  # fmt: skip
    built = make(tmp_path, GOOD.replace("dtype: float32", quantize))
    assert built.quantizer.config.bnb_4bit_quant_type == "nf4"
    full = make(tmp_path, GOOD, "adapter=full")
    assert type(full.adapter).__name__ == "Full"
    assert full.resolved["adapter"] == "full"
    (tmp_path / "old").mkdir()
    continued = make(tmp_path, GOOD, "adapter={from: old}")
    assert continued.adapter is None
    assert continued.resolved["adapter"] == {"from": str(tmp_path / "old")}


def test_nested_configs_are_constructed(tmp_path: Path) -> None:
    built = make(tmp_path, GOOD, "adapter.lora.init_lora_weights=loftq",
                 "adapter.lora.loftq_config={loftq_bits: 2}")  # fmt: skip
    # PEFT's own __post_init__ makes a dict of the LoftQConfig that was constructed.
    config = built.adapter.config.loftq_config  # type: ignore[union-attr]
    assert (config["loftq_bits"], config["loftq_iter"]) == (2, 1)
    eva = {"init_lora_weights": "eva", "eva_config": {"rho": 1.5}}
    assert construct("peft:LoraConfig", eva).eva_config.rho == 1.5
    pair = construct("peft:LoraConfig", {"layer_replication": [[0, 2]]}).layer_replication
    assert pair == [(0, 2)]


@pytest.mark.parametrize(
    ("override", "place", "key", "part"),
    [
        ("method.sft.debug=nonsense", "line 17", "method.sft", "nonsense"),
        ("method.sft.tf32=true", "override", "method.sft.tf32", "Ampere"),
        ("adapter.lora.use_dora=true adapter.lora.megatron_config={a: 1}", "override",
         "adapter.lora.use_dora", "DoRA does not support megatron_core"),
        ("data.source={embedded: {name: nothing}}", "override", "data.source.embedded",
         "no sample data"),
    ],
)  # fmt: skip
def test_upstream_errors_come_back_at_their_key(
    tmp_path: Path, override: str, place: str, key: str, part: str
) -> None:
    overrides = override.replace(" adapter", "\nadapter").split("\n")
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, GOOD, *overrides)
    (problem,) = caught.value.problems
    assert problem.place == place
    assert problem.key.startswith(key)
    assert part in problem.problem


@pytest.mark.parametrize(
    "override",
    [
        "method.sft.activation_offloading=true",
        "method.sft.activation_checkpointing_kwargs={offload: true}",
    ],
)
def test_offloading_is_refused_where_there_is_no_accelerator(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, GOOD, override)
    (problem,) = caught.value.problems
    assert problem.key.startswith(override.partition("=")[0])
    assert "accelerator" in problem.problem
    # What is refused does fail upstream, which says nothing of the option.
    from trl.models import get_act_offloading_ctx_manager

    with pytest.raises(AttributeError):
        get_act_offloading_ctx_manager(None)
    recipe = load_recipe(tmp_path / "recipe.yaml", [override])
    assert build(recipe, Machine("cuda", True, 1 << 33, 1 << 33, "GPU"), is_here=False)


def test_all_sections_are_tried(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, GOOD, "method.sft.debug=nonsense", "data.source={embedded: {name: x}}")
    assert len(caught.value.problems) == 2


def test_the_resolved_recipe_can_be_loaded_and_is_the_same(tmp_path: Path) -> None:
    built = make(tmp_path)
    elsewhere = tmp_path / "runs" / "good"
    elsewhere.mkdir(parents=True)
    text = dump_resolved(built)
    (elsewhere / "resolved.yaml").write_text(text)
    again = build(load_recipe(elsewhere / "resolved.yaml"), CPU)
    assert again.resolved == built.resolved
    assert again.decisions == built.decisions
    assert "# model.dtype is float32" in text
    decisions = parse(text, "x").data["decisions"]
    assert [d["key"] for d in decisions] == [d.key for d in built.decisions]


def test_defaults_that_decide_a_run_are_recorded(tmp_path: Path) -> None:
    resolved = make(tmp_path).resolved
    assert resolved["method"]["sft"]["seed"] == 42
    assert resolved["method"]["sft"]["optim"]
    assert resolved["data"]["task"]["summarize"]["document"] == "document"
    assert resolved["memory"] == {"budget": "6 GiB"}
