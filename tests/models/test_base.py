"""A base's weights are all loaded, and each refusal has a way out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from model_folder import base_of, edit, edit_weights, section

from peftkit.errors import ArtefactError
from peftkit.models.load import (
    load_config,
)
from peftkit.plugins import SEQUENCE_CLASSIFICATION


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_loads_every_weight_in_the_dtype_asked_for(folder) -> None:
    full = base_of(section(folder))
    half = base_of(section(folder, dtype="bfloat16", attn_implementation="eager"))
    assert {p.dtype for p in full.parameters()} == {torch.float32}
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.config._attn_implementation == "eager"
    assert not full.training


def test_an_architecture_this_transformers_does_not_know(folder) -> None:
    import transformers

    edit(folder / "config.json", model_type="tomorrow")
    with pytest.raises(ArtefactError) as caught:
        load_config(section(folder))
    assert caught.value.message == (
        f"{folder}: transformers {transformers.__version__} does not know the architecture"
        " 'tomorrow'"
    )
    assert "pip install --upgrade transformers" in caught.value.hint


def test_custom_code_is_neither_run_nor_asked_about(folder) -> None:
    edit(folder / "config.json", model_type="ours", auto_map={"AutoConfig": "ours.OurConfig"})
    (folder / "ours.py").write_text("raise SystemExit('this code must never run')")
    with pytest.raises(ArtefactError, match="comes with Python code of its own") as caught:
        load_config(section(folder))
    assert "model.trust_remote_code: true" in caught.value.hint


def test_code_beside_a_known_architecture_is_ignored(folder) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "ours.OurModel"})
    (folder / "ours.py").write_text("raise SystemExit('this code must never run')")
    assert type(base_of(section(folder))).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("field", ["_attn_implementation_internal", "attn_implementation"])
def test_a_field_that_fetches_a_kernel_is_refused(folder, field: str) -> None:
    edit(folder / "config.json", **{field: "someone/kernel"})
    with pytest.raises(ArtefactError, match="names code to download"):
        base_of(section(folder))


def test_missing_weights_are_named(folder) -> None:
    edit_weights(folder, lambda w: {k: v for k, v in w.items() if "norm" not in k})
    with pytest.raises(ArtefactError) as caught:
        base_of(section(folder))
    assert "the weights do not fit LlamaForCausalLM: missing model.layers.0" in caught.value.message
    assert "; and 1 more" in caught.value.message


def test_left_over_weights_are_named(folder) -> None:
    edit_weights(folder, lambda w: {**w, "model.layers.2.extra.weight": torch.zeros(2)})
    with pytest.raises(ArtefactError, match=r"left over model\.layers\.2\.extra\.weight"):
        base_of(section(folder))


def test_weights_of_another_size_are_named(folder) -> None:
    edit(folder / "config.json", intermediate_size=96)
    with pytest.raises(ArtefactError) as caught:
        base_of(section(folder))
    assert (
        "model.layers.0.mlp.down_proj.weight has shape (64, 128)"
        " where the configuration says (64, 96)"
    ) in caught.value.message


def test_a_new_head_may_be_missing_but_not_the_body(folder) -> None:
    model = base_of(section(folder), SEQUENCE_CLASSIFICATION)
    assert model.score.weight.shape == (2, 64)
    edit_weights(folder, lambda w: {k: v for k, v in w.items() if "q_proj" not in k})
    with pytest.raises(ArtefactError, match=r"missing model\.layers"):
        base_of(section(folder), SEQUENCE_CLASSIFICATION)


def test_torn_weights(folder) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(ArtefactError, match="is torn or no safetensors file"):
        base_of(section(folder))
