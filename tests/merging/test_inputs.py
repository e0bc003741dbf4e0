"""Finding what to merge: runs, adapters, whole models, and the base each belongs to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from peftkit.embedded import model_path
from peftkit.errors import ArtefactError, UsageError
from peftkit.merging.inputs import find_base, find_inputs
from peftkit.recipe.schema import ModelSection


def write_adapter(folder, **config):
    """Write a whole adapter, whose one tensor is of no layer."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    save_file({"a": np.zeros(1, np.float32)}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def adapter(tmp_path):
    def make(**config):
        return write_adapter(tmp_path / "adapter", **config)

    return make


def test_an_adapter_names_its_base_and_the_caller_may_name_another(adapter, tiny_model) -> None:
    folder = adapter(base_model_name_or_path=str(tiny_model))
    assert find_inputs(folder, None).base == tiny_model
    assert find_inputs(folder, "embedded:docstring-lm").base == model_path("docstring-lm")
    assert find_inputs(folder, None).quantize is None


def test_a_whole_model_has_no_base(tiny_model) -> None:
    inputs = find_inputs(tiny_model, None)
    assert inputs.adapter is None and inputs.base == tiny_model
    with pytest.raises(UsageError, match="whole model, so there is no base"):
        find_inputs(tiny_model, "embedded:docstring-lm")


def test_what_is_not_there_is_refused_with_the_way_out(adapter, tmp_path) -> None:
    with pytest.raises(ArtefactError, match="is no folder"):
        find_inputs(tmp_path / "nothing", None)
    with pytest.raises(ArtefactError, match="names no base model"):
        find_inputs(adapter(base_model_name_or_path=None), None)
    with pytest.raises(ArtefactError, match=r"/gone/base is not there.*\n.*--base FOLDER"):
        find_inputs(adapter(base_model_name_or_path="/gone/base"), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match=r"has no config\.json"):
        find_inputs(tmp_path / "empty", None)


def test_an_adapter_is_no_base(adapter) -> None:
    folder = adapter(base_model_name_or_path="x")
    with pytest.raises(ArtefactError, match="holds an adapter, not a base model"):
        find_base(ModelSection(path=str(folder)))


def test_a_run_says_its_base_and_its_quantization(tmp_path, tiny_model, tiny_data) -> None:
    import tiny

    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    write_adapter(run / "adapter", base_model_name_or_path="/elsewhere")
    text = tiny.recipe_text(tiny_model, tiny_data)
    quantize = "  dtype: float32\n  quantize: {bitsandbytes: {load_in_4bit: true}}\n"
    (run / "resolved.yaml").write_text(text.replace("  dtype: float32\n", quantize))
    inputs = find_inputs(run, None)
    assert inputs.base == tiny_model and inputs.adapter == run / "adapter"
    assert inputs.quantize is not None and inputs.quantize.name == "bitsandbytes"


def test_a_run_without_weights_is_told_to_run(tmp_path) -> None:
    (tmp_path / "resolved.yaml").write_text("name: x\n")
    with pytest.raises(ArtefactError, match="holds no trained weights yet"):
        find_inputs(tmp_path, None)
