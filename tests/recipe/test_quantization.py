"""What a recipe leaves open of its quantization is what a person means by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import yaml
from training_fixture import write_recipe

from peftkit.plugins import CAUSAL_LM, SEQUENCE_CLASSIFICATION, Machine, ModelKind
from peftkit.recipe.build import build, dump_resolved
from peftkit.recipe.load import load_recipe
from peftkit.recipe.quantization import (
    compute_dtype,
    decide_quantization,
    declared_dtype,
)
from peftkit.recipe.schema import Choice, ModelSection

CPU = Machine("cpu", supports_bfloat16=False, total_bytes=1 << 33, free_bytes=1 << 32, name="CPU")
LM, CLASSIFIER = CAUSAL_LM, SEQUENCE_CLASSIFICATION
HEADS = CLASSIFIER.heads
FOUR_BITS = {"load_in_4bit": True}


def decided(model: ModelSection, kind: ModelKind = LM) -> dict[str, object]:
    return {d.key: d.value for d in decide_quantization(model, kind)}


def four_bits(dtype: str, path: str | None = None, **options: object) -> ModelSection:
    quantize = Choice("bitsandbytes", {**FOUR_BITS, **options})
    return ModelSection(path=path, dtype=dtype, quantize=quantize)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
def test_four_bits_compute_in_the_dtype_of_the_model(
    tmp_path: Path, tiny_model: Path, dtype: str
) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    from peftkit.models.base import load_base

    rows = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows(4))
    quantize = {"bitsandbytes": FOUR_BITS}
    file = write_recipe(
        tmp_path / "r.json", tiny_model, rows, sft={"max_steps": 1, "max_length": 128},
        model={"path": str(tiny_model), "dtype": dtype, "quantize": quantize},
    )  # fmt: skip
    built = build(load_recipe(file), CPU)
    section = built.recipe.model
    base = load_base(section, kind=LM, quantizer=built.quantizer)
    base(input_ids=torch.arange(10, 30)[None], labels=torch.arange(10, 30)[None])
    packed = [module for module in base.modules() if isinstance(module, Linear4bit)]
    assert {module.compute_dtype for module in packed} == {base.dtype}
    assert {module.weight.quant_state.quant_type for module in packed} == {"nf4"}
    if dtype != "auto":
        assert str(base.dtype) == f"torch.{dtype}"
    shown = yaml.safe_load(dump_resolved(built))
    assert shown["model"]["quantize"]["bitsandbytes"] == {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": str(base.dtype).removeprefix("torch."),
    }  # fmt: skip
    keys = [d["key"] for d in shown["decisions"]]
    assert "model.quantize.bitsandbytes.bnb_4bit_compute_dtype" in keys


def test_what_is_stated_stays() -> None:
    at = "model.quantize.bitsandbytes"
    assert decided(four_bits("bfloat16", bnb_4bit_quant_type="fp4")) == {
        f"{at}.bnb_4bit_compute_dtype": "bfloat16"
    }
    assert decided(four_bits("bfloat16", bnb_4bit_compute_dtype=None)) == {
        f"{at}.bnb_4bit_quant_type": "nf4"
    }
    assert decided(ModelSection(quantize=Choice("bitsandbytes", {"load_in_8bit": True}))) == {}
    assert decided(ModelSection(dtype="bfloat16")) == {}


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        (four_bits("bfloat16"), "bfloat16"),
        (four_bits("bfloat16", bnb_4bit_compute_dtype="float32"), "float32"),
        (four_bits("bfloat16", bnb_4bit_compute_dtype=None), "float32"),
        (four_bits("auto"), "bfloat16"),
        (ModelSection(dtype="auto"), "auto"),
        (ModelSection(dtype="float16", quantize=Choice("eetq")), "float16"),
    ],
)
def test_dtype_that_products_are_in(model: ModelSection, dtype: str) -> None:
    assert compute_dtype(model) == dtype


def test_the_dtype_that_a_checkpoint_declares(tmp_path: Path) -> None:
    def declared(config: str, **section: str) -> str | None:
        (tmp_path / "config.json").write_text(config)
        return declared_dtype(ModelSection(path=str(tmp_path), **section))

    assert declared('{"dtype": "float16"}') == "float16"
    assert declared('{"torch_dtype": "bfloat16"}') == "bfloat16"
    assert declared('{"text_config": {"dtype": "float32"}}') == "float32"
    assert declared("{}") is None
    assert declared("not JSON") is None
    assert declared('{"dtype": "float16"}', subfolder="none") is None
    assert declared_dtype(ModelSection(path="embedded:docstring-lm")) == "bfloat16"
    assert declared_dtype(ModelSection(path="nobody/has-this")) is None
    assert declared_dtype(ModelSection()) is None


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("bitsandbytes", {"load_in_8bit": True}, "llm_int8_skip_modules"),
        ("quanto", {"weights": "int8"}, "modules_to_not_convert"),
        ("fp8", {}, "modules_to_not_convert"),
        ("hqq", {}, "skip_modules"),
    ],
)
def test_a_new_head_is_left_out_of_every_quantization(name: str, options: dict, key: str) -> None:
    model = ModelSection(dtype="float32", quantize=Choice(name, options))
    assert decided(model) == {}
    assert decided(model, CLASSIFIER) == {f"model.quantize.{name}.{key}": list(HEADS)}
    stated = ModelSection(quantize=Choice(name, {**options, key: ["mine"]}))
    assert decided(stated, CLASSIFIER) == {}


def test_transformers_reads_the_head_that_was_left_out() -> None:
    """Of a quantization other than bitsandbytes, whose layers can be made here without a GPU.

    transformers itself leaves the last module alone; this head has one before it.
    """
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        DistilBertConfig,
        FineGrainedFP8Config,
    )
    from transformers.quantizers.auto import AutoHfQuantizer

    config = DistilBertConfig(vocab_size=64, dim=128, hidden_dim=128, n_layers=1, n_heads=4)

    def quantized(**options: object):
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        native = FineGrainedFP8Config(**options)
        AutoHfQuantizer.from_config(native, pre_quantized=False).preprocess_model(model=model)
        return model

    assert type(quantized().pre_classifier) is not torch.nn.Linear
    (decision,) = decide_quantization(ModelSection(quantize=Choice("fp8", {})), CLASSIFIER)
    kept = quantized(**{decision.key.rpartition(".")[2]: decision.value})
    assert {type(kept.pre_classifier), type(kept.classifier)} == {torch.nn.Linear}
    assert type(kept.distilbert.transformer.layer[0].ffn.lin1) is not torch.nn.Linear
