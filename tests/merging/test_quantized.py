"""Quantized bases: the choice is the user's, and every choice's error is measured."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import tiny
import torch

from peftkit.errors import UsageError
from peftkit.merge import merge

pytest.importorskip("bitsandbytes")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt"),
]
FOUR_BIT = "{bitsandbytes: {load_in_4bit: true, bnb_4bit_quant_type: nf4}}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    return tiny.tiny_llama(folder, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """Return what a run on an NF4 base leaves: its recipe and its adapter."""
    import merge_fixture

    folder = tmp_path_factory.mktemp("run")
    data = tiny.write_jsonl(folder / "rows.jsonl", tiny.rows(4))
    text = tiny.recipe_text(model, data)
    quantize = f"  dtype: float32\n  quantize: {FOUR_BIT}\n"
    (folder / "resolved.yaml").write_text(text.replace("  dtype: float32\n", quantize))
    config = peft.LoraConfig(
        r=4, lora_alpha=10, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    merge_fixture.make_adapter(model, folder / "adapter", config)
    return folder


def test_no_choice_is_made_silently(run, model, tmp_path) -> None:
    with pytest.raises(UsageError, match="was quantized in training; say which weights") as caught:
        merge(run, out=tmp_path / "out")
    assert "--onto requantized" in str(caught.value)
    with pytest.raises(UsageError, match="nothing says how"):
        merge(run / "adapter", out=tmp_path / "out", base=str(model), onto="dequantized")
    assert not (tmp_path / "out").exists()


def test_each_choice_is_measured_against_base_and_adapter(run, model, tmp_path) -> None:
    results = {
        onto: merge(run, out=tmp_path / onto, onto=onto)
        for onto in ("full", "dequantized", "requantized")
    }
    for onto, result in results.items():
        assert result.onto == onto and len(result.changed) == 4
        errors = {error.onto: error.relative_rms for error in result.weight_errors}
        # NF4 is off by about 0.09 of a normal weight (a 4-bit number line), float32 by 1e-8
        assert errors["dequantized"] < 1e-7
        assert 0.005 < errors["requantized"] < 0.2
        assert 0.005 < errors["full"] < 0.2
        assert result.verification is not None and result.quantized_logits is not None
        assert result.verification.max_difference <= result.verification.tolerance
    assert results["dequantized"].quantized_logits.max_difference < 1e-4
    assert results["requantized"].quantized_logits.rms_difference < 0.05
    assert list(tmp_path.glob(".*")) == []


def test_requantized_loads_quantized_with_plain_transformers(run, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    result = merge(run, out=tmp_path / "out", onto="requantized", verify=False)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(loaded.model.layers[0].mlp.down_proj).__name__ == "Linear4bit"
    assert result.files[-1] == "merge.json"
    again = merge(run, out=tmp_path / "out", onto="requantized", verify=False)
    assert again.changed == result.changed


def test_a_base_that_is_stored_quantized(run, model, tmp_path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    stored = tmp_path / "stored"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    quantized = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float32
    )
    quantized.save_pretrained(stored)
    for file in model.glob("token*"):
        shutil.copy(file, stored)
    adapter = run / "adapter"
    with pytest.raises(UsageError, match="is stored quantized; say which weights"):
        merge(adapter, out=tmp_path / "out", base=str(stored))
    with pytest.raises(UsageError, match="holds quantized weights only"):
        merge(adapter, out=tmp_path / "out", base=str(stored), onto="full")
    result = merge(adapter, out=tmp_path / "out", base=str(stored), onto="dequantized")
    assert result.quantized_logits.max_difference < 1e-4
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
